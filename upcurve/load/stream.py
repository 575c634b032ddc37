"""Reading one server-sent-event response: stamps when bytes arrive, meaning after the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson

from upcurve.load.trace import RequestTrace

Read = tuple[int, bytes]
"""When bytes arrived, in nanoseconds, and the bytes."""


def interpret(trace: RequestTrace, reads: Sequence[Read]) -> None:
    """Fill a trace from what was read of a response with status 200.

    A chunk's time is that of the read which completed it. A stream without [DONE] is cut, one that
    carries no output is no success.
    """
    trace.first_byte_ns = reads[0][0] if reads else None
    done = False
    counts: list[int | None] = []
    try:
        for at, data in _events(reads):
            if data == b"[DONE]":
                done = True
                continue
            message = orjson.loads(data)
            if "error" in message:
                trace.failure, trace.detail = "server_error", str(message["error"])[:300]
                return
            usage = message.get("usage")
            if usage:
                trace.prompt_tokens = usage.get("prompt_tokens")
                trace.output_tokens = usage.get("completion_tokens", 0)
            for choice in message.get("choices", ()):
                ids = choice.get("token_ids")
                if ids or choice.get("text") or choice.get("delta", {}).get("content"):
                    trace.chunk_ns.append(at)
                    counts.append(len(ids) if ids else None)
                trace.finish_reason = choice.get("finish_reason") or trace.finish_reason
    except (orjson.JSONDecodeError, AttributeError, TypeError) as error:
        trace.failure, trace.detail = "malformed", str(error)[:300]
        return
    if not done:
        trace.failure, trace.detail = "cut", "the stream ended without [DONE]"
    elif not trace.chunk_ns:
        trace.failure, trace.detail = "no_output", "the stream held no output token"
    _count_tokens(trace, counts)


def _count_tokens(trace: RequestTrace, counts: list[int | None]) -> None:
    exact = [count for count in counts if count is not None]
    trace.tokens_exact = bool(counts) and len(exact) == len(counts)
    if trace.tokens_exact:
        trace.chunk_tokens = exact
        trace.output_tokens = trace.output_tokens or sum(exact)
        return
    chunks = len(counts)
    total = trace.output_tokens or chunks
    trace.output_tokens = total
    trace.chunk_tokens = [total * (i + 1) // chunks - total * i // chunks for i in range(chunks)]


def _events(reads: Sequence[Read]) -> Iterator[tuple[int, bytes]]:
    """Yield (time, data) of every event, in order; comments and other fields are passed over."""
    pending = b""
    for at, data in reads:
        lines = (pending + data).split(b"\n")
        pending = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                yield at, line[5:].strip()
