"""A connection to a replica: bytes of an answer as they come, and where it ends."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import httptools

from upcurve.engine.serve.router.replica import Replica


class Reader(Protocol):
    """Who asked."""

    def answer_bytes(self, data: bytes) -> None:
        """Take the next bytes of the answer."""

    def answer_done(self) -> None:
        """Know that these were the last."""

    def answer_refused(self) -> None:
        """Know that the replica answers 503; no bytes of that are handed on."""

    def answer_lost(self) -> None:
        """Know that the connection has ended before the answer had."""


class Upstream(asyncio.Protocol):
    """One HTTP/1.1 connection to a replica, for one request at a time."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.closed = False
        self.used = False
        """Whether it has served a request before the present one."""
        self.started = False
        """Whether bytes of the answer have been handed on: not before its head is whole."""
        self.is_stream = False
        """Whether the answer is of server-sent events."""
        self.between_chunks = False
        """Whether all chunks of the body that have begun are whole."""
        self._transport: asyncio.Transport
        self._reader: Reader | None = None
        self._head = b""
        self._status = 0
        """Of the answer; 0 as long as its head is not whole."""
        self._done = False
        self._kept = False
        self._parser: httptools.HttpResponseParser

    def request(self, data: bytes, reader: Reader) -> None:
        """Send a request; `reader` gets the answer."""
        self._reader = reader
        self.started = self.is_stream = self.between_chunks = self._done = False
        self._head, self._status = b"", 0
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(data)

    def close(self) -> None:
        """Close: what is being computed is for nobody any more."""
        self._reader = None
        self.closed = True
        self._transport.abort()

    def hold(self, held: bool) -> None:
        """Read no more while the client does not, or go on."""
        if self.closed:
            return
        if held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's is none by name.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand bytes on, and look for the end in them."""
        reader = self._reader
        if reader is None:
            # Nobody asked.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail()
            return
        if not self._status:
            self._head += data
            return
        if self._status == 503 and not self.started:
            self.close()
            reader.answer_refused()
            return
        if not self.started:
            self.started, data = True, self._head + data
        if not data.endswith(b"\r\n"):
            self.between_chunks = False
        reader.answer_bytes(data)
        if self._done:
            self._reader = None
            self.used = True
            if self._kept:
                self.replica.put_back(self)
            else:
                self.close()
            reader.answer_done()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Tell who waits."""
        self.closed = True
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.answer_lost()

    def _fail(self) -> None:
        reader = self._reader
        self.close()
        if reader is not None:
            reader.answer_lost()

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note what kind of answer it is."""
        if name.lower() == b"content-type" and value.startswith(b"text/event-stream"):
            self.is_stream = True

    def on_headers_complete(self) -> None:
        """Know the status; no chunk has begun."""
        self._status = self._parser.get_status_code()
        self.between_chunks = True

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self.between_chunks = False

    def on_chunk_complete(self) -> None:
        """A chunk is whole."""
        self.between_chunks = True

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._done = True
        self._kept = self._parser.should_keep_alive()
