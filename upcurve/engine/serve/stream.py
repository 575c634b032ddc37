"""Work for a client that may go away: server-sent events, and whole answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from upcurve.engine.serve.answer import error_event
from upcurve.engine.serve.errors import ApiError

Result = TypeVar("Result")
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # A proxy that collects the stream would spoil every latency.
    (b"x-accel-buffering", b"no"),
]


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result | None:
    """Run `work`, whose request body is read; cancel it and return None if the client goes away."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        watcher.cancel()
        task.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A response of server-sent events, whose generator is closed when the client goes away.

    The status is sent with the first event, so that a request that fails before it gets an HTTP
    error; one that fails later gets an event with the error, and no [DONE].
    """

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__()
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the stream; part of the ASGI interface."""
        await while_connected(receive, self._run(send))

    async def _run(self, send: Send) -> None:
        started = False
        async with aclosing(self._events) as events:
            try:
                async for chunk in events:
                    if not started:
                        started = True
                        await send(
                            {"type": "http.response.start", "status": 200, "headers": HEADERS}
                        )
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except ApiError as error:
                if not started:
                    raise
                await send(
                    {"type": "http.response.body", "body": error_event(error), "more_body": True}
                )
        await send({"type": "http.response.body", "body": b""})
