"""Answers while they are generated: whole ones, and server-sent events."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from upcurve.engine.execute.event import Event
from upcurve.engine.serve.answer import Answer, error_event
from upcurve.engine.serve.bridge import Bridge
from upcurve.engine.serve.choice import Choice, Delta
from upcurve.engine.serve.connection import EXTENSION, Connection
from upcurve.engine.serve.errors import ApiError

logger = logging.getLogger(__name__)

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


class Call(ABC):
    """The choices of one HTTP call: a `Receiver` of their events."""

    def __init__(self, bridge: Bridge, answer: Answer, choices: Sequence[Choice]) -> None:
        self._bridge = bridge
        self._answer = answer
        self._choices = choices
        self._running = {each.request.id: each for each in choices}
        self._error: ApiError | None = None
        self._ended = asyncio.Event()

    def take(self, event: Event) -> None:
        """Take an event; an error ends the call after what came before it."""
        choice = self._running.get(event.request_id)
        if choice is None:
            return
        try:
            self._add(choice.push(event))
        except ApiError as error:
            self._end(error)
        except Exception:
            logger.exception("an answer cannot be written")
            self._end(ApiError(500, "an error of the server; its log has the details"))
        else:
            if choice.finished:
                del self._running[event.request_id]
                # Only a stop string leaves a request that goes on.
                self._bridge.end(event.request_id, "stop")
                if not self._running:
                    self._ended.set()

    @abstractmethod
    def flush(self) -> None:
        """Act on what was taken."""

    @abstractmethod
    def _add(self, delta: Delta) -> None:
        """Keep what an event adds."""

    def _end(self, error: ApiError) -> None:
        self._error = error
        self._running.clear()
        self._ended.set()

    def _requests(self) -> Any:
        return self._bridge.call([each.request for each in self._choices], self)


class WholeCall(Call):
    """Collects an answer that is sent at once."""

    def __init__(self, bridge: Bridge, answer: Answer, choices: Sequence[Choice]) -> None:
        super().__init__(bridge, answer, choices)
        self._whole = [Delta(each.index) for each in choices]

    async def run(self) -> bytes:
        """Generate, and return the answer.

        Raises:
            ApiError: a request failed.
        """
        with self._requests():
            await self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._answer.whole(self._whole, self._choices)

    def flush(self) -> None:
        """Wait for the rest."""

    def _add(self, delta: Delta) -> None:
        self._whole[delta.index].append(delta)


class StreamCall(Call, Response):
    """A response of server-sent events; they are written as the engine delivers them.

    The status is sent with the first event, so that a request that fails before it gets an HTTP
    error; one that fails later gets an event with the error, and no [DONE].
    While its reader is behind, events wait here; then all of them are written at once.
    """

    def __init__(self, bridge: Bridge, answer: Answer, choices: Sequence[Choice]) -> None:
        Response.__init__(self)
        Call.__init__(self, bridge, answer, choices)
        self._unsent: list[bytes] = []
        self._begun = asyncio.Event()
        self._connection: Connection | None = None
        """Set while this answer may be written to directly."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; part of the ASGI interface."""
        await while_connected(
            receive, self._run(scope["extensions"][EXTENSION]["connection"], send)
        )

    async def _run(self, connection: Connection, send: Send) -> None:
        with self._requests():
            await self._begun.wait()
            if self._error is not None and not self._unsent:
                raise self._error
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            self._connection = connection
            connection.on_writable = self.flush
            try:
                self.flush()
                await self._ended.wait()
            finally:
                self._connection = None
                connection.on_writable = _nothing
        last = self._answer.end(self._choices) if self._error is None else error_event(self._error)
        body = b"".join((*self._unsent, last))
        await send({"type": "http.response.body", "body": body})

    def flush(self) -> None:
        """Write what is there, if the reader keeps up; the end goes with the last event."""
        connection, unsent = self._connection, self._unsent
        if connection is None:
            self._begun.set()
        # Nothing runs any more: the end is about to be written, with what is left.
        elif unsent and self._running and connection.writable:
            connection.write_chunk(unsent[0] if len(unsent) == 1 else b"".join(unsent))
            unsent.clear()

    def _add(self, delta: Delta) -> None:
        self._unsent.append(self._answer.chunk(delta))


def _nothing() -> None:
    pass
