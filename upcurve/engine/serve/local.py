"""An engine on a thread of this process: for tests, which look at it and hold it back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from upcurve.engine.execute.engine import Engine
from upcurve.engine.schedule.request import Request
from upcurve.engine.serve.messages import Capacity, Report
from upcurve.engine.serve.reporter import Reporter


class LocalEngine:
    """The same as `RemoteEngine`, without a process: see `bridge.EngineHandle`."""

    def __init__(self, engine: Engine) -> None:
        self.capacity = Capacity.of(engine)
        self._loop = Reporter(engine, self._send).loop
        self._event_loop: asyncio.AbstractEventLoop
        self._receive: Callable[[Sequence[Report]], None]

    async def start(self, receive: Callable[[Sequence[Report]], None]) -> None:
        """Start the engine's thread."""
        self._event_loop, self._receive = asyncio.get_running_loop(), receive
        self._loop.start()

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self._loop.submit(request)

    def abort(self, request_id: str) -> None:
        """End a request."""
        self._loop.abort(request_id)

    async def stop(self) -> None:
        """Stop the engine's thread."""
        await asyncio.to_thread(self._loop.stop)

    def _send(self, report: Report) -> None:
        self._event_loop.call_soon_threadsafe(self._receive, [report])
