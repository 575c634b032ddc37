"""One client's connection: bytes -> requests, answers -> bytes."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import httptools

from upcurve.load.known_server.request import RefusedError
from upcurve.load.known_server.wire import CONTINUE, error_body, whole_answer

if TYPE_CHECKING:
    from upcurve.load.known_server.server import KnownServer
    from upcurve.load.known_server.stream import Stream

_MOST_BYTES = 2**28  # of one body


@dataclass(slots=True)
class Request:
    """A request as it came."""

    arrived_ns: int
    method: str = ""
    path: str = ""
    authorization: str | None = None
    keep: bool = True
    """Whether the connection stays open after the answer."""
    body: list[bytes] = field(default_factory=list)
    size: int = 0


class Connection(asyncio.Protocol):
    """A connection of HTTP/1.1; its requests are answered one after the other."""

    def __init__(self, server: KnownServer) -> None:
        self.carried = False
        """Whether it has carried a request for tokens."""
        self.stream: Stream | None = None
        """The answer in the making."""
        self.free_ns = 0
        """When the last answer was through."""
        self._server = server
        self._requests: deque[Request] = deque()
        self._asked = Request(0)
        self._answered: Request | None = None
        self._read_ns = 0
        self._parser: httptools.HttpRequestParser | None = None
        self._transport: asyncio.Transport
        self._socket: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)
        if transport.get_extra_info("sslcontext") is None:
            self._socket = transport.get_extra_info("socket").fileno()
        self._server.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Give up what the client no longer reads."""
        self._parser = None  # which refers to this object: nothing is left to the collector
        self._requests.clear()
        self._server.connections.discard(self)
        if self.stream is not None:
            self._server.left(self.stream)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and answer the requests that are whole."""
        self._read_ns = time.perf_counter_ns()
        if self._parser is None or self._transport.is_closing():
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, RefusedError):
                raise
            self._refuse(error.__context__)
        except httptools.HttpParserError as error:
            self._refuse(RefusedError(400, f"this is no HTTP: {error}"))

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._asked = Request(self._read_ns)

    def on_url(self, url: bytes) -> None:
        """Take a piece of the URL."""
        self._asked.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        name = name.lower()
        if name == b"authorization":
            self._asked.authorization = value.decode("latin-1")
        elif name == b"expect" and value.lower() == b"100-continue":
            self.write(CONTINUE)

    def on_headers_complete(self) -> None:
        """Take the request line."""
        assert self._parser is not None, "it calls this"
        self._asked.method = self._parser.get_method().decode()
        self._asked.path = self._asked.path.partition("?")[0]
        self._asked.keep = self._parser.should_keep_alive()
        if self._parser.get_http_version() != "1.1" or self._parser.should_upgrade():
            raise RefusedError(505, "only HTTP/1.1 is spoken here")

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._asked.size += len(body)
        if self._asked.size > _MOST_BYTES:
            raise RefusedError(413, f"the body is longer than {_MOST_BYTES} bytes")
        self._asked.body.append(body)

    def on_message_complete(self) -> None:
        """Answer the request, or let it wait for those before it."""
        self._requests.append(self._asked)
        self._answer_next()

    @property
    def keep(self) -> bool:
        """Whether the connection stays open after the answer that is made."""
        return self._answered is None or self._answered.keep

    def write(self, data: bytes) -> None:
        """Hand bytes to the kernel now.

        The event loop would write them at the end of its turn: later than the truth says.
        """
        if self._socket is None or self._transport.get_write_buffer_size():
            self._transport.write(data)
            return
        try:
            sent = os.write(self._socket, data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the client has left
            self._transport.abort()
            return
        if sent < len(data):
            self._transport.write(data[sent:])

    def send_whole(self, body: bytes) -> None:
        """Write a good answer that is no stream."""
        self.write(whole_answer(200, body, keep=self.keep))

    def abort(self) -> None:
        """Break the connection."""
        self._transport.abort()

    def done(self) -> None:
        """Go on to the next request, or close."""
        keep = self.keep
        self.stream = self._answered = None
        self.free_ns = time.perf_counter_ns()
        if not keep:
            self._transport.close()
        elif self._requests:
            asyncio.get_running_loop().call_soon(self._answer_next)

    def _answer_next(self) -> None:
        if self._requests and self._answered is None and not self._transport.is_closing():
            self._answered = self._requests.popleft()
            self._server.answer(self, self._answered)

    def _refuse(self, refused: RefusedError) -> None:
        # Amid another answer there is no place for this one.
        if self._answered is None:
            self.write(whole_answer(refused.status, error_body(refused), keep=False))
        self._transport.close()
