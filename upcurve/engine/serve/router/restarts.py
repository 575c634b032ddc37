"""Processes that end while others go on are started anew, a few times."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from upcurve.engine.serve.router.replica_process import EXIT_SECONDS, ReplicaProcesses

logger = logging.getLogger(__name__)

DELAYS_SECONDS = (1.0, 5.0, 25.0)
"""Before each new start in a row; one that ends once more is left as it is."""
LOOK_SECONDS = 0.1
STEADY_SECONDS = 60.0
"""After so long of serving a start is none of the row any more."""


@dataclass(slots=True)
class History:
    """What has become of one process."""

    restarts: int = 0
    """How often it was started anew."""
    given_up: bool = False
    """Whether it has ended too often for that."""
    row: int = 0
    """Attempts since it last served for a while."""
    ready: float = field(default_factory=time.monotonic)
    """When it was last found to serve; later than ever while it loads."""


class Restarts:
    """Watches processes that serve; lives in the event loop of the router or server before them."""

    def __init__(
        self,
        processes: ReplicaProcesses,
        *,
        needed: int = 0,
        joined: bool = False,
        ended: Callable[[int], None] = lambda _: None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to watch.

        Args:
            processes: that serve.
            needed: fewer that run are none at all.
            joined: whether they share their experts: then one alone cannot be started.
            ended: called with the number of one that has ended.
            stop: called once fewer run than are needed.
        """
        self.histories = [History() for _ in processes.announcements]
        """Of each process."""
        self._processes = processes
        self._needed = needed
        self._joined = joined
        self._tell = ended
        self._stop = stop
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        for number in range(len(self.histories)):
            self._watch(number)

    def close(self) -> None:
        """Start nothing any more."""
        self._closing = True
        for task in self._tasks:
            task.cancel()

    def _watch(self, number: int) -> None:
        loop, sentinel = asyncio.get_running_loop(), self._processes.sentinels[number]

        def ended() -> None:
            loop.remove_reader(sentinel)
            self._ended(number)

        loop.add_reader(sentinel, ended)

    def _ended(self, number: int) -> None:
        history = self.histories[number]
        self._processes.reap(number)
        self._tell(number)
        if self._processes.running < self._needed:
            self._stop()
        elif not (self._joined or self._closing):
            how = self._processes.end(number)
            if time.monotonic() - history.ready > STEADY_SECONDS:
                history.row = 0
            self._again(number, how)

    def _again(self, number: int, why: str) -> None:
        """Start a process anew after a while, unless that was to no avail too often."""
        history, name = self.histories[number], self._name(number)
        if history.row == len(DELAYS_SECONDS):
            history.given_up = True
            logger.error("%s: %s is left as it is after %d attempts", why, name, history.row)
            return
        delay = DELAYS_SECONDS[history.row]
        history.row += 1
        logger.info("%s: %s is started anew in %g s", why, name, delay)
        task = asyncio.ensure_future(self._start(number, delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, number: int, delay: float) -> None:
        history = self.histories[number]
        await asyncio.sleep(delay)
        # A GPU's memory is free only once the engine is gone.
        patience = time.monotonic() + EXIT_SECONDS
        while self._processes.left(number) and time.monotonic() < patience:
            await asyncio.sleep(LOOK_SECONDS)
        try:
            self._processes.restart(number)
        except OSError as error:
            self._again(number, f"no process: {error}")
            return
        history.restarts += 1
        # Loading is no serving.
        history.ready = math.inf
        self._watch(number)
        loop, teller = asyncio.get_running_loop(), self._processes.teller(number)

        def told() -> None:
            loop.remove_reader(teller)
            problem = self._processes.hear(number)
            if problem is None:
                history.ready = time.monotonic()
                logger.info("%s serves again", self._name(number))
            else:
                logger.error("%s: %s", self._name(number), problem)

        loop.add_reader(teller, told)

    def _name(self, number: int) -> str:
        return f"{self._processes.kind} {self._processes.announcements[number].url}"
