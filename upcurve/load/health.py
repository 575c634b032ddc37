"""The client's own condition: an instrument that is too busy lies."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy

SATURATED_LAG_MS = 10.0
"""A timestamp may be late by the loop's lag; beyond this it spoils times to first token."""
SATURATED_BUSY = 0.5
"""Share of one core. Half-way to the limit of a single event loop its queueing already shows."""

_INTERVAL_S = 0.01


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """How the client itself fared while it measured."""

    lag_p99_ms: float
    """99th percentile of how late the event loop ran a timer."""
    cpu_s: float
    """CPU seconds of this process."""
    wall_s: float
    """Seconds measured."""

    @property
    def saturated(self) -> bool:
        """Whether the client was too busy for its timestamps to be trusted."""
        busy = self.cpu_s / self.wall_s if self.wall_s > 0 else 0.0
        return self.lag_p99_ms > SATURATED_LAG_MS or busy > SATURATED_BUSY


class HealthProbe:
    """Watches the running event loop from its construction until `stop`."""

    def __init__(self) -> None:
        self._lags_ns: list[int] = []
        self._started_ns = time.perf_counter_ns()
        self._cpu_s = time.process_time()
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def stop(self) -> ClientHealth:
        """End watching and return what was seen."""
        self._task.cancel()
        lags_ms = numpy.array(self._lags_ns or [0]) / 1e6
        return ClientHealth(
            lag_p99_ms=float(numpy.percentile(lags_ms, 99)),
            cpu_s=time.process_time() - self._cpu_s,
            wall_s=(time.perf_counter_ns() - self._started_ns) / 1e9,
        )

    async def _watch(self) -> None:
        while True:
            due = time.perf_counter_ns() + round(_INTERVAL_S * 1e9)
            await asyncio.sleep(_INTERVAL_S)
            self._lags_ns.append(max(0, time.perf_counter_ns() - due))


@contextmanager
def frozen_garbage() -> Iterator[None]:
    """Keep the garbage collector from pausing the event loop."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
