"""One answer in the making: when its next chunk is due, and what is written then."""

from __future__ import annotations

import time
from random import Random
from typing import Protocol

from upcurve.load.known_server.behaviour import Behaviour
from upcurve.load.known_server.request import Asked
from upcurve.load.known_server.truth import Served
from upcurve.load.known_server.wire import DONE, END, Events, event, framed

_ORDERED = {"error": {"message": "a fault as ordered"}}
_FINISHED = (None, "empty", "short", "long", "stall", "burst")


class Sink(Protocol):
    """The connection that an answer is written to."""

    def write(self, data: bytes) -> None:
        """Hand the bytes to the kernel now, as far as it takes them."""

    def send_whole(self, body: bytes) -> None:
        """Write an answer that is no stream."""

    def abort(self) -> None:
        """Break the connection."""


class Stream:
    """The tokens of one answer on their way to the client."""

    __slots__ = (
        "_asked",
        "_count",
        "_due_ns",
        "_events",
        "_first_ns",
        "_gap_ns",
        "_held",
        "_jitter",
        "_known",
        "_position",
        "_stall",
        "_tokens",
        "gone",
        "served",
        "sink",
    )

    def __init__(
        self,
        asked: Asked,
        served: Served,
        known: Behaviour,
        events: Events,
        jitter: Random | None,
        stall_ms: float,
        sink: Sink,
    ) -> None:
        self.served = served
        self.sink = sink
        self.gone = False
        """Whether the client has left."""
        self._asked = asked
        self._known = known
        self._events = events
        self._jitter = jitter
        self._first_ns = known.first_ms * 1e6
        self._gap_ns = known.interval_ms * 1e6
        self._held = served.fault == "burst" or not asked.stream
        self._stall = (max(1, asked.tokens // 2), stall_ms) if served.fault == "stall" else None
        self._tokens = _tokens(asked.tokens, served.fault)
        self._position = self._count = 0
        self._due_ns: float = 0

    def begin(self, start_ns: int, beside: int = 0) -> int:
        """Begin to compute beside so many others; return when the first step is due."""
        self.served.started_ns = start_ns
        self._gap_ns += beside * self._known.per_stream_ms * 1e6
        if not self._tokens:
            return start_ns
        self._due_ns = start_ns
        due_ns = self._next()
        if self._held:
            while self._position + self._count < self._tokens:
                self._position += self._count
                due_ns = self._next()
        return due_ns

    def step(self) -> int | None:
        """Write the chunk that is due; return when the next one is, or None where none is left."""
        if self.gone or not self._tokens:
            return None
        if self._held:
            self._write_held()
            return None
        position, count = self._position, self._count
        self._position = after = position + count
        if after < self._tokens:
            chunk = self._events.ready.get(position) or self._events.middle(position)
        else:
            chunk = self._events.chunk(position, count, self._finish)
        self.served.written_tokens.append(count)
        self.served.written_ns.append(time.perf_counter_ns())
        self.sink.write(chunk)
        return self._next() if after < self._tokens else None

    def end(self) -> None:
        """Write what comes after the tokens."""
        fault, asked = self.served.fault, self._asked
        if fault == "cut":
            self.sink.abort()
        elif asked.stream:
            last = b""
            if fault == "error_event":
                last = framed(event(_ORDERED))
            elif fault == "garbage":
                last = framed(b"data: {no JSON\n\n")
            elif fault != "no_done":
                usage = (
                    self._events.usage(asked.prompt_tokens, self._tokens) if asked.usage else b""
                )
                last = usage + framed(DONE)
            self.sink.write(last + END)
        elif not self._tokens:
            self.sink.send_whole(self._events.whole(asked.prompt_tokens, 0, self._finish))
        self.served.ended_ns = time.perf_counter_ns()

    @property
    def _finish(self) -> str | None:
        return "length" if self.served.fault in _FINISHED else None

    def _next(self) -> int:
        """Return when the next chunk is due: with the last of its tokens."""
        position = self._position
        self._count = count = min(self._known.tokens_per_chunk, self._tokens - position)
        due_ns = self._due_ns
        if self._jitter is None:
            due_ns += count * self._gap_ns
            if not position:
                due_ns += self._first_ns - self._gap_ns
        else:
            width_ns = self._known.jitter_ms * 1e6
            for each in range(position, position + count):
                gap_ns = self._gap_ns if each else self._first_ns
                due_ns += max(0.0, gap_ns + self._jitter.uniform(-width_ns, width_ns))
        if self._stall is not None and position <= self._stall[0] < position + count:
            due_ns += self._stall[1] * 1e6
            self.served.stall_ms, self.served.stalled_after = self._stall[1], position
        self._due_ns = due_ns
        return int(due_ns)

    def _write_held(self) -> None:
        fault, events = self.served.fault, self._events
        if not self._asked.stream:
            if fault == "cut":
                return
            if fault in ("error_event", "garbage"):
                self.sink.send_whole(b'{"error": ' if fault == "garbage" else event(_ORDERED)[6:])
                return
        if self._asked.stream:
            size = self._known.tokens_per_chunk
            firsts = range(0, self._tokens, size)
            chunks = [events.middle(first) for first in firsts[:-1]]
            last = events.chunk(firsts[-1], self._tokens - firsts[-1], self._finish)
            answer = b"".join([*chunks, last])
        else:
            answer = events.whole(self._asked.prompt_tokens, self._tokens, self._finish)
        self.served.written_tokens.append(self._tokens)
        self.served.written_ns.append(time.perf_counter_ns())
        if self._asked.stream:
            self.sink.write(answer)
        else:
            self.sink.send_whole(answer)


def _tokens(asked: int, fault: str | None) -> int:
    half = max(1, asked // 2)
    if fault in (None, "stall", "burst"):
        return asked
    return {"empty": 0, "long": asked + half}.get(fault, half)
