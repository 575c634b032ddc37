"""An event loop whose clock does not run while it works: times depend on no machine.

Real sockets carry the bytes. Each turn of the loop takes a microsecond, and where nothing is left
to do the clock jumps to the next timer.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from upcurve.load import connection

Result = TypeVar("Result")
TURN_NS = 1_000


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Do the same as `asyncio.run`, in simulated time; `time.perf_counter_ns` tells it too."""
    clock = Clock()
    with (
        pytest.MonkeyPatch.context() as patch,
        asyncio.Runner(loop_factory=lambda: SimulatedLoop(clock)) as runner,
    ):
        patch.setattr(time, "perf_counter_ns", clock.read)
        patch.setattr(connection, "_clock", clock.read)
        return runner.run(work)


class Clock:
    """Simulated time."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def read(self) -> int:
        return self.now_ns


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock of its own."""

    def __init__(self, clock: Clock) -> None:
        self._simulated = clock
        self._selects = _Selector(clock)
        super().__init__(self._selects)

    def time(self) -> float:
        return self._simulated.now_ns / 1e9

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Run in a thread, for which the clock waits."""
        future = super().run_in_executor(executor, func, *args)
        self._selects.threads.add(future)
        future.add_done_callback(self._selects.threads.discard)
        return future


class _Selector(selectors.DefaultSelector):
    """Waits in simulated time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.threads: set[asyncio.Future[Any]] = set()
        self._clock = clock
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._near = socket.create_connection(listener.getsockname())
            self._far, _ = listener.accept()
        for end in (self._near, self._far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._clock.now_ns += TURN_NS
        found = super().select(0)
        if found or timeout == 0:
            return found
        # What the kernel still carries comes before a byte that goes the same way.
        self._near.send(b".")
        self._far.recv(1)
        found = super().select(0)
        while not found and (self.threads or timeout is None):
            found = super().select(0.001)
        if not found:
            assert timeout is not None
            self._clock.now_ns += max(0, round(timeout * 1e9))
        return found

    def close(self) -> None:
        self._near.close()
        self._far.close()
        super().close()
