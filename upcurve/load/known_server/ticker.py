"""One timer for all streams."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable

from upcurve.load.known_server.stream import Stream

_TURN_NS = 1_000_000
"""Writing for longer than this would stamp the arrivals that wait meanwhile too late."""


class Ticker:
    """Writes every stream's chunks when they are due, and never before.

    The event loop's timers have a grain of 1 ms: a chunk is late by at most that on an idle
    machine, and all that is due within one grain is written in one turn. Lateness does not add up.
    """

    def __init__(self, through: Callable[[Stream], None]) -> None:
        self._through = through
        """Called with each stream that has no chunk left."""
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[int, int, Stream]] = []
        self._order = itertools.count()
        self._armed: asyncio.Handle | None = None
        self._armed_ns = 0

    def add(self, due_ns: int, stream: Stream) -> None:
        """Write the stream's first chunk at `due_ns` of the monotonic clock."""
        heapq.heappush(self._heap, (due_ns, next(self._order), stream))
        if self._armed is None or due_ns < self._armed_ns:
            self._arm()

    def close(self) -> None:
        """Write nothing more."""
        self._heap.clear()
        if self._armed is not None:
            self._armed.cancel()

    def _arm(self) -> None:
        if self._armed is not None:
            self._armed.cancel()
        self._armed_ns = self._heap[0][0]
        wait_ns = self._armed_ns - time.perf_counter_ns()
        if wait_ns <= 0:
            self._armed = self._loop.call_soon(self._turn)
        else:  # rounded up, for less than the grain would be no wait at all
            self._armed = self._loop.call_later(-(-wait_ns // 1_000_000) / 1e3, self._turn)

    def _turn(self) -> None:
        self._armed = None
        heap, clock = self._heap, time.perf_counter_ns
        now_ns = clock()
        until_ns = now_ns + _TURN_NS
        while heap and heap[0][0] <= now_ns < until_ns:
            _, order, stream = heap[0]
            due_ns = stream.step()
            if due_ns is None:
                heapq.heappop(heap)
                self._through(stream)
            else:
                heapq.heapreplace(heap, (due_ns, order, stream))
            now_ns = clock()
        if heap and self._armed is None:
            self._arm()
