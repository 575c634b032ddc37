"""Replicas that end while others go on are started anew, a few times."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence

from upcurve.engine.serve.router.replica import Replica
from upcurve.engine.serve.router.replica_process import EXIT_SECONDS, ReplicaProcesses

logger = logging.getLogger(__name__)

DELAYS_SECONDS = (1.0, 5.0, 25.0)
"""Before each new start in a row; one that ends once more is left as it is."""
LOOK_SECONDS = 0.1
STEADY_SECONDS = 60.0
"""After so long of serving a start is none of the row any more."""


class Restarts:
    """Watches the processes of replicas; lives in the router's event loop."""

    def __init__(
        self,
        processes: ReplicaProcesses,
        replicas: Sequence[Replica],
        *,
        needed: int,
        joined: bool,
        stop: Callable[[], None],
    ) -> None:
        """Begin to watch.

        Args:
            processes: of the replicas.
            replicas: the same, in the same order, as the router knows them.
            needed: fewer that run are none at all.
            joined: whether they share their experts: then one alone cannot be started.
            stop: called once fewer run than are needed.
        """
        self._processes = processes
        self._replicas = replicas
        self._needed = needed
        self._joined = joined
        self._stop = stop
        self._row = [0] * len(replicas)
        self._ready = [time.monotonic()] * len(replicas)
        """When each was last found to serve."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        for number, replica in enumerate(replicas):
            replica.restarts = 0
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
        replica = self._replicas[number]
        self._processes.reap(number)
        replica.set_up(False, "its process has ended")
        if self._processes.running < self._needed:
            self._stop()
        elif not (self._joined or self._closing):
            how = self._processes.end(number)
            if time.monotonic() - self._ready[number] > STEADY_SECONDS:
                self._row[number] = 0
            self._again(number, how)

    def _again(self, number: int, why: str) -> None:
        """Start a replica anew after a while, unless that was to no avail too often."""
        replica, row = self._replicas[number], self._row[number]
        if row == len(DELAYS_SECONDS):
            replica.given_up = True
            logger.error("%s: replica %s is left as it is", why, replica.url)
            return
        self._row[number] += 1
        delay = DELAYS_SECONDS[row]
        logger.info("%s: replica %s is started anew in %g s", why, replica.url, delay)
        task = asyncio.ensure_future(self._start(number, delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, number: int, delay: float) -> None:
        replica = self._replicas[number]
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
        replica.restarts = (replica.restarts or 0) + 1
        # Loading is no serving.
        self._ready[number] = math.inf
        self._watch(number)
        loop, teller = asyncio.get_running_loop(), self._processes.teller(number)

        def told() -> None:
            loop.remove_reader(teller)
            problem = self._processes.hear(number)
            if problem is None:
                self._ready[number] = time.monotonic()
            else:
                logger.error("replica %s: %s", replica.url, problem)

        loop.add_reader(teller, told)
