"""Between the calls of HTTP and the engine: whose events these are, and that each call ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from upcurve.engine.execute.event import Event, FinishReason
from upcurve.engine.schedule.request import Request
from upcurve.engine.serve.errors import ApiError
from upcurve.engine.serve.messages import (
    Broken,
    Capacity,
    PrefillWorker,
    PrefillWorkers,
    Report,
    Status,
    Step,
)
from upcurve.engine.serve.metrics import Metrics

LEAST_WAITING_REQUESTS = 1024
"""So many may wait where nothing is said, however few run at once."""


SENSELESS_STEPS = 3
"""So many in a row are no accident of one request."""


class EngineHandle(Protocol):
    """An engine that runs somewhere else; all methods are for the thread of the event loop."""

    capacity: Capacity

    async def start(self, receive: Callable[[Sequence[Report]], None]) -> None:
        """Begin; `receive` is called on the event loop with each `Step`, and with one `Broken`.

        Reports that are there at once come together.
        """

    def submit(self, request: Request) -> None:
        """Queue a request."""

    def abort(self, request_id: str) -> None:
        """End a request; nothing happens where it has ended."""

    async def stop(self) -> None:
        """End the engine; nothing is received any more."""


class Receiver(Protocol):
    """Takes the events of one call, without a task in between."""

    def take(self, event: Event) -> None:
        """Take one event; raises nothing."""

    def flush(self) -> None:
        """Act on what was taken: no more events are there now."""


@dataclass(slots=True)
class _Open:
    """A request that has no terminal event yet."""

    receiver: Receiver
    last: float
    """time.perf_counter() of its last token, or of its arrival."""
    started: bool = False


class Bridge:
    """Hands each event to its call; every request ends here exactly once, whatever the engine does.

    All methods are for the thread of the event loop.
    """

    def __init__(
        self, engine: EngineHandle, metrics: Metrics, max_waiting_requests: int | None = None
    ) -> None:
        """Begin with no requests.

        Args:
            engine: computes them.
            metrics: are told of them.
            max_waiting_requests: beside those that the engine runs at once; None is 8 times as
                many as these, and 1,024 at least.
        """
        self.capacity = engine.capacity
        slots = engine.capacity.total_slots
        if max_waiting_requests is None:
            max_waiting_requests = max(8 * slots, LEAST_WAITING_REQUESTS)
        self._most_open = slots + max_waiting_requests
        self.failure: str | None = None
        """Why the engine was given up."""
        self.draining = False
        """Whether no new requests are wanted, because the server is about to stop."""
        self.on_failure: Callable[[], None] = lambda: None
        """Called once, when the engine is given up."""
        self.on_idle: Callable[[], None] = lambda: None
        """Called whenever the last open request has ended."""
        self._engine = engine
        self._metrics = metrics
        self._open: dict[str, _Open] = {}
        self._status = Status()
        self.prefill_workers: list[PrefillWorker] = []
        """What a decode worker knows of them."""
        metrics.watch(self.capacity, lambda: self._status, lambda: len(self._open))
        metrics.watch_transfers(
            self.capacity.role, lambda: self._status.transfers, lambda: self.prefill_workers
        )

    async def start(self) -> None:
        """Start the engine; called on the running event loop."""
        await self._engine.start(self._receive)

    async def stop(self) -> None:
        """Abort what is left and end the engine."""
        self._end_all("aborted", "the server is stopping")
        await self._engine.stop()

    @property
    def senseless(self) -> bool:
        """Whether the last steps drew tokens, and none of them from finite logits."""
        return self._status.senseless_steps >= SENSELESS_STEPS

    @property
    def open_requests(self) -> int:
        """Requests that have no terminal event yet."""
        return len(self._open)

    @contextmanager
    def call(self, requests: Sequence[Request], receiver: Receiver) -> Iterator[None]:
        """Submit requests; those that are not finished at the end of the block are aborted.

        Raises:
            ApiError: 429; too many are open. 400; they are too many on their own.
        """
        if len(requests) > self._most_open:
            raise ApiError.bad_input(
                "prompt", f"it asks for {len(requests)} choices", f"{self._most_open} at most"
            )
        if len(self._open) + len(requests) > self._most_open:
            self._metrics.refused.inc(len(requests))
            raise ApiError(
                429,
                f"the queue is full: {len(self._open)} of {self._most_open} requests are running "
                "or waiting; try again later",
                code="rate_limit_exceeded",
            )
        now = time.perf_counter()
        try:
            for request in requests:
                self._open[request.id] = _Open(receiver, now)
                self._metrics.prompt_tokens.inc(len(request.prompt))
                self._engine.submit(request)
            yield
        finally:
            for request in requests:
                self.end(request.id, "aborted")

    def end(self, request_id: str, reason: str) -> None:
        """Abort a request, unless it has ended; its events come no more."""
        if request_id in self._open:
            self._engine.abort(request_id)
            self._close(request_id, reason)

    def _close(self, request_id: str, reason: str) -> None:
        del self._open[request_id]
        self._metrics.finished.labels(reason).inc()
        if not self._open:
            self.on_idle()

    def _receive(self, reports: Sequence[Report]) -> None:
        # A server that is behind writes the tokens of several steps at once, and so catches up.
        receivers: dict[Receiver, None] = {}
        for report in reports:
            if isinstance(report, Step):
                self._dispatch(report, receivers)
            elif isinstance(report, PrefillWorkers):
                self.prefill_workers = report.workers
            elif isinstance(report, Broken) and self.failure is None:
                self.failure = report.reason
                self._end_all("failed", f"the engine stopped: {report.reason}")
                self.on_failure()
        for receiver in receivers:
            receiver.flush()

    def _dispatch(self, step: Step, receivers: dict[Receiver, None]) -> None:
        self._status = step.status
        # Most requests had their last token at the same time: the step before.
        gaps: dict[float, int] = {}
        first = []
        for event in step.events():
            entry = self._open.get(event.request_id)
            if entry is None:
                continue
            if event.token is not None:
                if entry.started:
                    gaps[entry.last] = gaps.get(entry.last, 0) + 1
                else:
                    entry.started = True
                    first.append(step.at - entry.last)
                entry.last = step.at
            if event.finish is not None:
                self._close(event.request_id, event.finish)
            entry.receiver.take(event)
            receivers[entry.receiver] = None
        self._metrics.step_done(step, first, {step.at - last: n for last, n in gaps.items()})

    def _end_all(self, finish: FinishReason, error: str) -> None:
        for request_id, entry in list(self._open.items()):
            self._close(request_id, finish)
            entry.receiver.take(Event(request_id, None, finish=finish, error=error))
            entry.receiver.flush()
