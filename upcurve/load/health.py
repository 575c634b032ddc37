"""The client's own condition: an instrument that is too busy lies."""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy

LAG_LIMIT_MS = 10.0
"""A time may be late by the event loop's lag; beyond this it spoils times to first token."""
BUSY_LIMIT = 0.5
"""Share of one core. Half-way to the limit of an event loop its queueing already shows."""

_INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """How the client itself fared while it measured."""

    lag_p99_ms: float
    """99th percentile of how late an event loop ran a timer; of several loops, the worst."""
    cpu_s: float
    """CPU seconds of all measuring processes."""
    wall_s: float
    """Seconds measured."""
    busy: float = 0.0
    """CPU seconds of the busiest measuring process per second."""
    workers: int = 1
    """Measuring processes."""
    memory_mb: float = 0.0
    """Largest resident memory of the measuring processes together, in 10^6 bytes."""

    @property
    def saturated(self) -> bool:
        """Whether the client was too busy for its times to be trusted."""
        return self.lag_p99_ms > LAG_LIMIT_MS or self.busy > BUSY_LIMIT

    @classmethod
    def together(cls, parts: Sequence[ClientHealth]) -> ClientHealth:
        """Return the health of several measuring processes as one."""
        return cls(
            lag_p99_ms=max(each.lag_p99_ms for each in parts),
            cpu_s=sum(each.cpu_s for each in parts),
            wall_s=max(each.wall_s for each in parts),
            busy=max(each.busy for each in parts),
            workers=len(parts),
            memory_mb=sum(each.memory_mb for each in parts),
        )


class HealthProbe:
    """Watches the running event loop from its construction until `stop`."""

    def __init__(self) -> None:
        self._lags_ns = array("q")
        self._started_ns = time.perf_counter_ns()
        self._cpu_s = time.process_time()
        self._task = asyncio.get_running_loop().create_task(self._watch())

    @property
    def lag_ms(self) -> float:
        """How late the last timer ran."""
        return self._lags_ns[-1] / 1e6 if self._lags_ns else 0.0

    def stop(self) -> ClientHealth:
        """End watching and return what was seen."""
        self._task.cancel()
        lags_ms = numpy.array(self._lags_ns or [0]) / 1e6
        cpu_s = time.process_time() - self._cpu_s
        wall_s = (time.perf_counter_ns() - self._started_ns) / 1e9
        return ClientHealth(
            lag_p99_ms=float(numpy.percentile(lags_ms, 99)),
            cpu_s=cpu_s,
            wall_s=wall_s,
            busy=cpu_s / wall_s if wall_s > 0 else 0.0,
            memory_mb=_peak_memory_mb(),
        )

    async def _watch(self) -> None:
        while True:
            due = time.perf_counter_ns() + round(_INTERVAL_S * 1e9)
            await asyncio.sleep(_INTERVAL_S)
            self._lags_ns.append(max(0, time.perf_counter_ns() - due))


def _peak_memory_mb() -> float:
    """Return the most memory that this process has had resident, in 10^6 bytes.

    `getrusage` would tell that of the process that started it, where that was larger.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 / 1e6


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
