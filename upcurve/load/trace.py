"""One request's record: when it was sent, when each token came, how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow

Failure = Literal[
    "connect",
    "http_4xx",
    "http_5xx",
    "timeout",
    "cut",
    "malformed",
    "error_event",
    "short_output",
    "long_output",
]
"""Why a request failed: no connection; an HTTP status; no end within the timeout; a stream that
ended without [DONE]; an answer that is no OpenAI stream or has no token; an error inside it; fewer
or more output tokens than were asked for."""


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """One request. Times are in ns of the client's monotonic clock, None where never reached."""

    stream: int
    """Which of the concurrent streams sent it, from 0."""
    warm_up: bool
    scheduled_ns: int
    """When it should have been sent: its slot became free."""
    sent_ns: int
    """Just before it was written."""
    ended_ns: int
    """The last byte, or the failure."""
    first_byte_ns: int | None = None
    """The first byte of the body."""
    first_content_ns: int | None = None
    """The chunk with the first token."""
    last_ns: int | None = None
    """The chunk with the last token."""
    chunk_ns: tuple[int, ...] = ()
    """One time per content chunk (server-sent event with at least one token)."""
    chunk_tokens: tuple[int, ...] = ()
    """Tokens of each content chunk; from token ids, else the server's total spread evenly."""
    prompt_tokens: int | None = None
    """Input tokens by the server's usage."""
    output_tokens: int | None = None
    """Output tokens by the server's usage."""
    counted_tokens: int | None = None
    """Output tokens by the token ids received; None where the server sends none."""
    cached_tokens: int | None = None
    """Input tokens that the server took from its prefix cache, where it says so."""
    finish_reason: str | None = None
    failure: Failure | None = None
    detail: str | None = None
    """What the server or the network said about the failure."""
    http_status: int | None = None


_TIMES = pyarrow.list_(pyarrow.int64())
_SCHEMA = pyarrow.schema(
    [
        pyarrow.field("stream", pyarrow.int32(), nullable=False),
        pyarrow.field("warm_up", pyarrow.bool_(), nullable=False),
        pyarrow.field("scheduled_ns", pyarrow.int64(), nullable=False),
        pyarrow.field("sent_ns", pyarrow.int64(), nullable=False),
        pyarrow.field("ended_ns", pyarrow.int64(), nullable=False),
        pyarrow.field("first_byte_ns", pyarrow.int64()),
        pyarrow.field("first_content_ns", pyarrow.int64()),
        pyarrow.field("last_ns", pyarrow.int64()),
        pyarrow.field("chunk_ns", _TIMES, nullable=False),
        pyarrow.field("chunk_tokens", pyarrow.list_(pyarrow.int32()), nullable=False),
        pyarrow.field("prompt_tokens", pyarrow.int32()),
        pyarrow.field("output_tokens", pyarrow.int32()),
        pyarrow.field("counted_tokens", pyarrow.int32()),
        pyarrow.field("cached_tokens", pyarrow.int32()),
        pyarrow.field("finish_reason", pyarrow.string()),
        pyarrow.field("failure", pyarrow.string()),
        pyarrow.field("detail", pyarrow.string()),
        pyarrow.field("http_status", pyarrow.int32()),
    ]
)


def to_table(traces: Iterable[RequestTrace]) -> pyarrow.Table:
    """Return one row per request; columns are the fields of `RequestTrace`."""
    kept = list(traces)
    columns = {
        each.name: [getattr(trace, each.name) for trace in kept] for each in fields(RequestTrace)
    }
    return pyarrow.Table.from_pydict(columns, schema=_SCHEMA)


def from_table(table: pyarrow.Table) -> list[RequestTrace]:
    """Return the requests of a table that `to_table` made."""
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        row.update(chunk_ns=tuple(row["chunk_ns"]), chunk_tokens=tuple(row["chunk_tokens"]))
    return [RequestTrace(**row) for row in rows]
