"""A client's connection to the router: requests go to replicas, answers come back as they are."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import httptools
import orjson

from upcurve.engine.serve.errors import ApiError
from upcurve.engine.serve.router.balancer import prompt_pieces
from upcurve.engine.serve.router.replica import Replica
from upcurve.engine.serve.router.upstream import Upstream

if TYPE_CHECKING:
    from upcurve.engine.serve.router.router import Router

MAX_BODY_BYTES = 16 * 2**20
MOST_WAITING = 16
"""Requests that a client may send before it has its answers."""
HOP_BY_HOP = (b"connection", b"keep-alive", b"expect", b"transfer-encoding", b"content-length")
REASONS = {200: b"OK", 413: b"Content Too Large", 502: b"Bad Gateway", 503: b"Service Unavailable"}


@dataclass(slots=True)
class Request:
    """What a client asks for."""

    method: bytes = b""
    url: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    keep_alive: bool = True
    too_large: bool = False
    tried: set[str] = field(default_factory=set)
    """Replicas that could not be reached."""

    def encode(self) -> bytes:
        """Return it as it is sent to a replica."""
        lines = [self.method + b" " + self.url + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in self.headers]
        if self.body or self.method == b"POST":
            lines.append(b"content-length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(self.body)


class Client(asyncio.Protocol):
    """One HTTP/1.1 connection of a client, whose requests are answered one after the other."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._gone = False
        self._reading = Request()
        self._waiting: deque[Request] = deque()
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._upstream: Upstream | None = None
        self._replica: Replica | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._request is not None

    # The client's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's is none by name.
        self._transport = cast("asyncio.Transport", transport)
        self._router.clients.add(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Give up what the client waits for no more."""
        self._gone = True
        self._router.clients.discard(self)
        if self._task is not None:
            self._task.cancel()
        if self._upstream is not None:
            self._upstream.close()
        self._finished()

    def data_received(self, data: bytes) -> None:
        """Read requests; those that come while one is answered wait."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError):
            self._transport.abort()
        if len(self._waiting) > MOST_WAITING:
            self._transport.abort()

    def pause_writing(self) -> None:
        """Hold the replica back: the client does not keep up."""
        if self._upstream is not None:
            self._upstream.hold(True)

    def resume_writing(self) -> None:
        """Go on."""
        if self._upstream is not None:
            self._upstream.hold(False)

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._reading = Request()

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._reading.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if name.lower() not in HOP_BY_HOP:
            self._reading.headers.append((name, value))
        elif name.lower() == b"expect":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        request = self._reading
        request.too_large |= len(request.body) + len(body) > MAX_BODY_BYTES
        if not request.too_large:
            request.body += body

    def on_message_complete(self) -> None:
        """Answer, once all before it are."""
        self._reading.method = self._parser.get_method()
        self._reading.keep_alive = self._parser.should_keep_alive()
        self._waiting.append(self._reading)
        if self._request is None:
            self._next()

    def _next(self) -> None:
        if not self._waiting:
            return
        request = self._request = self._waiting.popleft()
        path = urlsplit(request.url).path
        if request.too_large:
            self._fail(ApiError(413, f"body: over {MAX_BODY_BYTES} bytes; send less"))
        elif path == b"/health":
            self.answer(*self._router.health())
        elif path == b"/metrics":
            self._task = asyncio.ensure_future(self._metrics())
        else:
            self._task = asyncio.ensure_future(self._pass_on(request))

    async def _metrics(self) -> None:
        text, kind = await self._router.metrics()
        self.answer(200, text, kind)

    # The replica's side.

    async def _pass_on(self, request: Request) -> None:
        """Send the request to a replica; to another where one cannot be reached."""
        if self._router.draining:
            self._fail(
                ApiError(503, "the router is draining: it stops soon; ask another, or later")
            )
            return
        pieces = prompt_pieces(bytes(request.body)) if request.body else []
        while (replica := self._router.choose(pieces, request.tried)) is not None:
            request.tried.add(replica.url)
            # Others that are being sent count on it.
            self._replica = replica
            replica.open += 1
            try:
                upstream = replica.take_idle() or await replica.connect()
            except OSError as error:
                replica.set_up(False, str(error) or type(error).__name__)
                self._finished()
                continue
            self._upstream = upstream
            upstream.request(request.encode(), self)
            return
        self._fail(ApiError(503, "no replica is up; try again later"))

    def answer_bytes(self, data: bytes) -> None:
        """Pass the replica's bytes on, unchanged."""
        self._transport.write(data)

    def answer_done(self) -> None:
        """Be ready for the next request."""
        self._upstream = None
        self._finished()
        self._answered()

    def answer_refused(self) -> None:
        """Ask another replica: this one is about to end, or has lost its engine."""
        _, replica, request = self._give_up()
        self._router.suspect(replica, "it answers 503")
        self._task = asyncio.ensure_future(self._pass_on(request))

    def answer_lost(self) -> None:
        """End the request with an error: its replica is gone."""
        upstream, replica, request = self._give_up()
        if upstream.used and not upstream.started:
            # It was closed for having been idle, before the request came: a new one will do.
            request.tried.discard(replica.url)
            self._task = asyncio.ensure_future(self._pass_on(request))
            return
        self._router.suspect(replica, "it broke off an answer")
        self._break_off(
            upstream, ApiError(502, f"replica {replica.url} ended before its answer did")
        )

    def stop(self) -> None:
        """End the request with an error: the router ends."""
        if self._upstream is None:
            # Nobody has been asked, or nothing is waited for.
            return
        upstream, _, _ = self._give_up()
        upstream.close()
        self._break_off(upstream, ApiError(503, "the router stops before the answer is whole"))

    def _give_up(self) -> tuple[Upstream, Replica, Request]:
        """Wait for the replica no more; return what was waited for."""
        upstream, replica, request = self._upstream, self._replica, self._request
        assert upstream is not None
        assert replica is not None
        assert request is not None
        self._upstream = None
        self._finished()
        return upstream, replica, request

    def _break_off(self, upstream: Upstream, error: ApiError) -> None:
        """Tell the client, as far as it can be told, that no more comes."""
        if not upstream.started:
            self._fail(error)
        elif upstream.is_stream and upstream.between_chunks:
            event = b"data: " + orjson.dumps(error.body()) + b"\n\n"
            self._transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
            # The answer is whole, so that the client may send its next request here.
            self._answered()
        else:
            # Whatever is missing, the client sees that it is.
            self._transport.abort()

    def _finished(self) -> None:
        if self._replica is not None:
            self._replica.open -= 1
            self._replica = None
            self._router.ended()

    def _fail(self, error: ApiError) -> None:
        self.answer(error.status, orjson.dumps(error.body()))

    def answer(self, status: int, body: bytes, kind: bytes = b"application/json") -> None:
        """Answer without a replica."""
        if self._gone or self._request is None:
            return
        head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n"
        head %= (status, REASONS[status], kind, len(body))
        if status == 503:
            head += b"retry-after: 5\r\n"
        if status == 413 or self._router.draining:
            self._request.keep_alive = False
        if not self._request.keep_alive:
            head += b"connection: close\r\n"
        self._transport.write(head + b"\r\n" + body)
        self._answered()

    def _answered(self) -> None:
        request, self._request, self._task = self._request, None, None
        assert request is not None
        if request.keep_alive and not self._router.draining:
            self._next()
        else:
            self._waiting.clear()
            self._transport.close()
