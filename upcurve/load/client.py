"""The load client: measuring processes, and the points that are measured with them."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.sharedctypes import RawArray
from typing import Any

from upcurve.closing import Closing
from upcurve.errors import InputError
from upcurve.load.arrivals import ClosedLoop, Load, OpenLoop
from upcurve.load.driver import ENDED, FAILED, SENT, TOKENS, Share
from upcurve.load.health import ClientHealth
from upcurve.load.target import Target
from upcurve.load.trace import RequestTrace
from upcurve.load.worker import Order, PhaseOrder, ProbeOrder, StartOrder, work
from upcurve.load.workload import Phase, Workload

STREAMS_PER_WORKER = 256
"""Streams that one measuring process carries before another is worth its core."""

_LOOK_S = 0.25
_LEAD_NS = 20_000_000  # from the order to start until the start: every process has read it
_START_S = 60.0


class ClientError(Exception):
    """A measuring process died: what it saw is lost."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a point is."""

    phase: Phase
    sent: int
    """Requests sent in this phase."""
    ended: int
    failed: int
    tokens: int
    """Output tokens of the requests that ended."""
    requests: int | None
    """Requests of this phase in all; None where a duration bounds it."""
    elapsed_s: float
    """Since the phase began."""
    duration_s: float | None
    """Of the phase, where a duration bounds it."""


Watch = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one point came to."""

    load: Load
    traces: list[RequestTrace]
    """In the order of their ends, warm-up included, failed ones too."""
    health: ClientHealth
    start_ns: int
    """When the measured phase began, by `time.perf_counter_ns`."""


class LoadClient(Closing):
    """Measuring processes, from entering its context until leaving it.

    The processes do nothing but send, stamp and decode; the calling process makes the metrics and
    watches. No token and no request is passed between processes while a phase runs.
    """

    def __init__(self, workers: int | None = None, *, timeout_s: float = 600.0) -> None:
        """Choose the processes.

        Args:
            workers: measuring processes at most; None: one per core but one, which is the server's
                or this process's.
            timeout_s: seconds that one request may take.
        """
        if workers is not None and workers < 1:
            raise InputError("workers", f"{workers} processes", "give 1 or more")
        self._most = workers
        self._timeout_s = timeout_s
        self._workers: list[_Worker] = []

    def close(self) -> None:
        """End the measuring processes."""
        while self._workers:
            self._workers.pop().end()

    def probe(self, target: Target, workload: Workload, watch: Watch | None = None) -> Target:
        """Ask the server for one answer; return the target with what the server understands.

        Raises:
            InputError: nothing answers there, or the server refuses the model, the key, the
                lengths.
            ClientError: the measuring process died.
        """
        self._staff(1)
        order = ProbeOrder(target, workload, self._timeout_s)
        state = Progress("probe", 1, 0, 0, 0, 1, 0, None)
        try:
            (replies,) = self._ask([order], lambda: _tell(watch, state))
        except BaseException:
            self.close()
            raise
        found = replies[0]
        assert isinstance(found, Target), "the reply to a probe"
        return found

    def measure(
        self,
        target: Target,
        workload: Workload,
        load: Load,
        *,
        warmup: int = 0,
        watch: Watch | None = None,
    ) -> Measurement:
        """Measure one point; `probe` the target first, once per server.

        Args:
            target: the server, as `probe` returned it.
            workload: what is sent; give points on one server distinct seeds or salts.
            load: when it is sent.
            warmup: requests in all that are sent before, with prompts of their own; in a closed
                loop at least one per stream is sent.
            watch: called about four times a second; what it raises ends the measurement.

        Raises:
            InputError: fewer requests than streams, or not so many distinct prompts.
            ClientError: a measuring process died.
        """
        warm = _warm_up(load, warmup)
        for part in (load, warm):
            if part is not None and part.requests is not None:
                workload.require(part.requests)
        self._staff(self._processes(load))
        try:
            before = None if warm is None else self._phase(target, workload, "warm-up", warm, watch)
            measured = self._phase(target, workload, "measured", load, watch)
        except BaseException:
            self.close()  # a process in the middle of a phase takes no orders
            raise
        traces = [*(before.traces if before else []), *measured.traces]
        traces.sort(key=lambda each: each.ended_ns)
        return Measurement(load, traces, measured.health, measured.start_ns)

    def _processes(self, load: Load) -> int:
        most = most_workers(self._most)
        if isinstance(load, OpenLoop):
            return most
        if self._most is not None:
            return min(most, load.concurrency)
        return min(most, -(-load.concurrency // STREAMS_PER_WORKER))

    def _staff(self, workers: int) -> None:
        """Have that many processes; idle ones cost nothing but memory."""
        missing = [_Worker() for _ in range(len(self._workers), workers)]
        self._workers += missing
        for each in missing:
            each.start()

    def _phase(
        self, target: Target, workload: Workload, phase: Phase, load: Load, watch: Watch | None
    ) -> Measurement:
        workers = self._processes(load)
        shares = [Share(load, place, workers) for place in range(workers)]
        self._ask(
            [PhaseOrder(target, workload, phase, each, self._timeout_s) for each in shares],
            lambda: None,
        )
        counters = [each.counters for each in self._workers[:workers]]
        for each in counters:
            each[:] = [0] * len(each)
        start_ns = time.perf_counter_ns() + _LEAD_NS

        def look() -> None:
            sums = [sum(each[place] for each in counters) for place in range(4)]
            elapsed_s = max(0.0, (time.perf_counter_ns() - start_ns) / 1e9)
            _tell(
                watch,
                Progress(
                    phase,
                    sums[SENT],
                    sums[ENDED],
                    sums[FAILED],
                    sums[TOKENS],
                    load.requests,
                    elapsed_s,
                    load.duration_s,
                ),
            )

        replies = self._ask([StartOrder(start_ns)] * workers, look)
        traces = [trace for each in replies for batch in each[:-1] for trace in batch]
        health = ClientHealth.together([each[-1] for each in replies])
        look()
        return Measurement(load, traces, health, start_ns)

    def _ask(self, orders: Sequence[Order], look: Callable[[], None]) -> list[list[Any]]:
        """Give each process its order; return what each replied."""
        asked = self._workers[: len(orders)]
        for worker, order in zip(asked, orders, strict=True):
            worker.send(order)
        open_pipes = {worker.pipe: worker for worker in asked}
        replies: dict[Pipe, list[Any]] = {worker.pipe: [] for worker in asked}
        while open_pipes:
            for pipe in wait(list(open_pipes), timeout=_LOOK_S):
                assert isinstance(pipe, Pipe), "what was waited for"
                reply = open_pipes[pipe].receive()
                if isinstance(reply, InputError):
                    raise reply
                replies[pipe].append(reply)
                if not isinstance(reply, list):  # the last one
                    del open_pipes[pipe]
            look()
        return [replies[worker.pipe] for worker in asked]


def most_workers(asked: int | None) -> int:
    """Return how many measuring processes there may be: as asked, else one per core but one."""
    return asked or max(1, len(os.sched_getaffinity(0)) - 1)


class _Worker:
    """A measuring process, seen from the process that gives it orders."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.counters = RawArray("q", 4)
        self._theirs: Pipe | None = theirs
        self._process = context.Process(target=work, args=(theirs, self.counters), daemon=True)

    def start(self) -> None:
        self._process.start()
        assert self._theirs is not None, "started once"
        self._theirs.close()
        self._theirs = None

    def send(self, order: Order) -> None:
        try:
            self.pipe.send(order)
        except (BrokenPipeError, ConnectionResetError):
            raise self._death() from None

    def receive(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._death() from None

    def end(self) -> None:
        self.pipe.close()
        self._process.join(1.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _death(self) -> ClientError:
        self._process.join(1.0)
        return ClientError(f"a measuring process ended with exit code {self._process.exitcode}")


def _warm_up(load: Load, requests: int) -> Load | None:
    """Return the load that goes before a point, with prompts of its own."""
    if isinstance(load, ClosedLoop):
        return ClosedLoop(load.concurrency, requests=max(requests, load.concurrency))
    if requests == 0:
        return None
    return OpenLoop(
        load.rate,
        load.process,
        load.burstiness,
        requests=requests,
        limit=load.limit,
        seed=load.seed + 1,
    )


def _tell(watch: Watch | None, progress: Progress) -> None:
    if watch is not None:
        watch(progress)
