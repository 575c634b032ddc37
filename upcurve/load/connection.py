"""One HTTP/1.1 connection: writes a request, stamps what is read, parses it when it may."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import httptools

from upcurve.load.answer import Answer, error_message, excerpt
from upcurve.load.trace import Failure

_SLICE = 256
"""Reads that are kept unparsed: bounds memory, and the time for which parsing holds up reading."""
_LARGE = 2**12
"""Bytes of a read that is parsed at once: one event has a few hundred."""
_TAIL = b"\r\n\r\n"
_ERROR_BYTES = 2**16

_clock = time.perf_counter_ns

Reads = list[tuple[int, bytes]]


@dataclass(slots=True)
class Exchange:
    """One request as it went: times in ns, what came back, how it ended."""

    scheduled_ns: int
    requested_tokens: int | None = None
    sent_ns: int = 0
    ended_ns: int = 0
    first_byte_ns: int | None = None
    status: int | None = None
    answer: Answer = field(default_factory=Answer)
    failure: Failure | None = None
    detail: str | None = None
    new_connection: bool = False
    eager: bool = False
    """Whether every read is parsed at once, for one who looks on."""
    bodies: Reads = field(default_factory=list)
    """Parts of the response's body that are not decoded yet, each with the time of its read."""

    def fail(self, failure: Failure, detail: str) -> None:
        """Note the first thing that went wrong."""
        if self.failure is None:
            self.failure, self.detail = failure, detail

    def decode(self) -> None:
        """Decode the events that were read so far."""
        bodies, self.bodies = self.bodies, []
        self.answer.take(bodies)

    def settle(self) -> None:
        """Decode what is left and judge the answer, once the exchange has ended."""
        if self.status is not None and self.status != 200:
            body = b"".join(data for _, data in self.bodies)[:_ERROR_BYTES]
            kind: Failure = "http_5xx" if self.status >= 500 else "http_4xx"
            kind = kind if self.status >= 400 else "malformed"
            self.bodies = []
            # A refusal is what went wrong, also where the connection broke after it.
            self.failure, self.detail = kind, f"HTTP {self.status}: {error_message(body)}"
            return
        self.decode()
        if self.failure is None:
            self.answer.finish(self.requested_tokens)
        if self.answer.failure is not None:
            self.failure, self.detail = self.answer.failure, self.answer.detail


class Connection(asyncio.Protocol):
    """Carries one exchange after the other.

    While an answer streams in, a read costs a stamp and an append. Only what may be its end is
    parsed at once; the rest is parsed after it, or in slices of some 64 KB.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.idle_since_ns = 0
        self.closed = False
        self._exchange: Exchange | None = None
        self._ended: asyncio.Future[None] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._reads: Reads = []
        self._eager = True
        self._now = 0
        self._chunked = self._framed = self._complete = self._kept = False

    @property
    def reusable(self) -> bool:
        """Whether another exchange can be carried."""
        return not self.closed and self.transport is not None and not self.transport.is_closing()

    async def carry(self, exchange: Exchange, payload: bytes) -> None:
        """Send a request and read its answer to the end; what goes wrong is in the exchange."""
        assert self.transport is not None, "connected"
        assert self._exchange is None, "one exchange at a time"
        self._exchange = exchange
        self._reads = []
        self._ended = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._eager = True
        self._chunked = self._framed = self._complete = self._kept = False
        try:
            self.transport.write(payload)
            await self._ended
        finally:
            if not self._complete:
                self.close()
            self._exchange = self._ended = self._parser = None
            self._eager = True
            self._reads = []
            self.idle_since_ns = time.perf_counter_ns()

    def close(self) -> None:
        """Close at once."""
        self.closed = True
        if self.transport is not None:
            self.transport.abort()

    def expire(self) -> None:
        """Close, and end the exchange: its failure has been noted."""
        self.close()
        self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        self.transport = transport  # type: ignore[assignment]  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """Stamp what was read (asyncio calls this)."""
        reads = self._reads
        reads.append((_clock(), data))
        # What may be the end of the answer, or of its head, is at most 3 bytes or ends like it.
        if self._eager or not 3 < len(data) < _LARGE or data.endswith(_TAIL) or len(reads) > _SLICE:
            self._parse()

    def connection_lost(self, error: Exception | None) -> None:
        """End the exchange that was under way (asyncio calls this)."""
        self.closed = True
        exchange = self._exchange
        if exchange is None or self._complete:
            return
        if self._reads:
            self._parse()
        if self._complete or exchange.failure is not None:
            return
        exchange.ended_ns = time.perf_counter_ns()
        # Without a length an answer ends as the connection does.
        if exchange.status is None or self._chunked or self._framed or error is not None:
            said = str(error) if error is not None else "the connection was closed"
            exchange.fail("cut", excerpt(said.encode()))
        self._end()

    def _parse(self) -> None:
        parser, exchange = self._parser, self._exchange
        reads, self._reads = self._reads, []
        if parser is None or exchange is None:  # nothing was asked: the server is out of step
            self.close()
            return
        if exchange.first_byte_ns is None:
            exchange.first_byte_ns = reads[0][0]
        try:
            for self._now, data in reads:
                parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                exchange.ended_ns = self._now
                exchange.fail("malformed", excerpt(f"no HTTP: {error}".encode()))
            self.close()
        if self._complete:
            self._eager = True  # nothing more may come: what does closes the connection
            if not self._kept:
                self.close()
        elif exchange.failure is None:
            # Until the head is whole, and where only a length tells the end, every read is parsed.
            self._eager = exchange.eager or not self._chunked
            if exchange.status == 200 and len(exchange.bodies) > 1:
                exchange.decode()
            return
        self._end()

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    # What httptools calls.

    def on_message_begin(self) -> None:
        """Note an answer to nothing that was asked: the server is out of step."""
        if self._complete:
            self._kept = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Learn how the body ends."""
        name = name.lower()
        if name == b"transfer-encoding":
            self._chunked = b"chunked" in value.lower()
        elif name == b"content-length":
            self._framed = True

    def on_headers_complete(self) -> None:
        """Learn the status."""
        assert self._exchange is not None, "inside an exchange"
        assert self._parser is not None, "inside an exchange"
        if not self._complete:
            self._exchange.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body with the time of its read."""
        assert self._exchange is not None, "inside an exchange"
        if not self._complete:
            self._exchange.bodies.append((self._now, data))

    def on_message_complete(self) -> None:
        """Note the end of the answer."""
        assert self._exchange is not None, "inside an exchange"
        assert self._parser is not None, "inside an exchange"
        status = self._parser.get_status_code()
        # What is below 200 goes ahead of the answer (RFC 9110, section 15.2).
        if status >= 200 and not self._complete:
            self._complete = True
            self._kept = self._parser.should_keep_alive()
            self._exchange.ended_ns = self._now
