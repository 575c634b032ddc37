"""Between the event loop of HTTP and the thread of the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.event import Event
from upcurve.engine.execute.loop import EngineLoop
from upcurve.engine.schedule.request import Request
from upcurve.engine.serve.metrics import Metrics


class Inbox:
    """Events of the requests of one call, in order, as the engine delivers them."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._arrived = asyncio.Event()

    def put(self, event: Event) -> None:
        """Append an event."""
        self._events.append(event)
        self._arrived.set()

    async def take(self) -> list[Event]:
        """Wait until there are events, and return all there are."""
        await self._arrived.wait()
        self._arrived.clear()
        events, self._events = self._events, []
        return events


@dataclass(slots=True)
class _Open:
    """A request that has no terminal event yet."""

    inbox: Inbox
    last: float
    """time.perf_counter() of its last token, or of its arrival."""
    started: bool = False


class Bridge:
    """Owns the engine's loop; all methods are for the thread of the event loop.

    Every request that is submitted here is counted as finished exactly once.
    """

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self.engine = engine
        self.failure: BaseException | None = None
        """Why the engine was given up."""
        self.on_failure: Callable[[], None] = lambda: None
        """Called once, when it is."""
        self._metrics = metrics
        self._loop = EngineLoop(engine, self._deliver, self._failed, metrics.step.observe)
        self._open: dict[str, _Open] = {}
        self._event_loop: asyncio.AbstractEventLoop
        metrics.watch(self._loop)

    def start(self) -> None:
        """Start the engine's thread; called on the running event loop."""
        self._event_loop = asyncio.get_running_loop()
        self._loop.start()

    async def stop(self) -> None:
        """Abort what is left and stop the engine's thread."""
        await asyncio.to_thread(self._loop.stop)

    @contextmanager
    def call(self, requests: Sequence[Request]) -> Iterator[Inbox]:
        """Submit requests; those that are not finished at the end of the block are aborted."""
        inbox = Inbox()
        now = time.perf_counter()
        try:
            for request in requests:
                self._open[request.id] = _Open(inbox, now)
                self._metrics.prompt_tokens.inc(len(request.prompt))
                self._loop.submit(request)
            yield inbox
        finally:
            for request in requests:
                self.end(request.id, "aborted")

    def end(self, request_id: str, reason: str) -> None:
        """Abort a request, unless it has ended; its events come no more."""
        if self._open.pop(request_id, None) is not None:
            self._loop.abort(request_id)
            self._metrics.finished.labels(reason).inc()

    def _deliver(self, events: Sequence[Event]) -> None:
        self._event_loop.call_soon_threadsafe(self._dispatch, events, time.perf_counter())

    def _failed(self, error: BaseException) -> None:
        self._event_loop.call_soon_threadsafe(self._give_up, error)

    def _give_up(self, error: BaseException) -> None:
        self.failure = error
        self.on_failure()

    def _dispatch(self, events: Sequence[Event], now: float) -> None:
        metrics = self._metrics
        generated = 0
        for event in events:
            entry = self._open.get(event.request_id)
            if entry is None:
                continue
            if event.token is not None:
                generated += 1
                latency = metrics.inter_token if entry.started else metrics.first_token
                latency.observe(now - entry.last)
                entry.started, entry.last = True, now
            if event.finish is not None:
                del self._open[event.request_id]
                metrics.finished.labels(event.finish).inc()
            entry.inbox.put(event)
        metrics.generated_tokens.inc(generated)
