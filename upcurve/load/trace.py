"""One request's record: when it was sent, when each token came, how it ended."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy
import numpy.typing

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

RESOLUTION_NS = 1000
"""Times of chunks are kept to the microsecond: an event loop knows no more, and a trace is half."""


def times(values: Iterable[int] = ()) -> array[int]:
    """Return times in ns as int64."""
    return array("q", values)


def counts(values: Iterable[int] = ()) -> array[int]:
    """Return numbers of tokens as int32."""
    return array("i", values)


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """One request. Times are in ns of the client's monotonic clock, None where never reached."""

    stream: int
    """Which of the concurrent streams sent it, from 0; in an open loop, which arrival it was."""
    warm_up: bool
    scheduled_ns: int
    """When it should have been sent: its slot became free, or its arrival was due."""
    sent_ns: int
    """Just before it was written."""
    ended_ns: int
    """The last byte, or the failure."""
    index: int = 0
    """Which prompt of the workload it carried."""
    first_byte_ns: int | None = None
    """The first byte of the response, its head included."""
    first_content_ns: int | None = None
    """The chunk with the first token."""
    first_answer_ns: int | None = None
    """The chunk with the first token that is no reasoning; None where all are, or none came."""
    last_ns: int | None = None
    """The chunk with the last token."""
    chunk_ns: array[int] = field(default_factory=times)
    """One time per content chunk (server-sent event with at least one token), int64, whole
    microseconds."""
    chunk_tokens: array[int] = field(default_factory=counts)
    """Tokens of each content chunk, int32; from token ids or running usage, else the server's
    total spread evenly."""
    input_tokens: int | None = None
    """Input tokens by the workload; None where it cannot tell."""
    requested_tokens: int | None = None
    """Output tokens that were asked for; None: until the model ends by itself."""
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
    new_connection: bool = False
    """Whether its time to the first token includes a connect."""

    @property
    def tokens(self) -> int:
        """Output tokens as the server counts them, else as they came."""
        return sum(self.chunk_tokens) if self.output_tokens is None else self.output_tokens


_NULLABLE = {
    "first_byte_ns": "int64",
    "first_content_ns": "int64",
    "first_answer_ns": "int64",
    "last_ns": "int64",
    "input_tokens": "int32",
    "requested_tokens": "int32",
    "prompt_tokens": "int32",
    "output_tokens": "int32",
    "counted_tokens": "int32",
    "cached_tokens": "int32",
    "finish_reason": "string",
    "failure": "string",
    "detail": "string",
    "http_status": "int32",
}
_REQUIRED = {
    "stream": "int32",
    "warm_up": "bool_",
    "scheduled_ns": "int64",
    "sent_ns": "int64",
    "ended_ns": "int64",
    "index": "int32",
    "new_connection": "bool_",
}


def to_table(traces: Iterable[RequestTrace]) -> Any:
    """Return one row per request as a `pyarrow.Table`.

    Columns are the fields of `RequestTrace`, but that `chunk_gap_us` stands for `chunk_ns`: the
    microseconds from one content chunk to the next, the first from `sent_ns` rounded down. So kept
    and compressed, a request of 1,024 tokens takes about 1 KB, and nothing is lost.
    """
    import pyarrow  # the measuring processes import this module, and have no use for it

    kept = list(traces)
    columns = {
        name: pyarrow.array([getattr(each, name) for each in kept], getattr(pyarrow, kind)())
        for name, kind in (_REQUIRED | _NULLABLE).items()
    }
    columns["chunk_gap_us"] = _lists([_gaps_us(each) for each in kept], "int64")
    columns["chunk_tokens"] = _lists([each.chunk_tokens for each in kept], "int32")
    order = [
        "chunk_gap_us" if each.name == "chunk_ns" else each.name for each in fields(RequestTrace)
    ]
    return pyarrow.table({name: columns[name] for name in order})


def from_table(table: Any) -> list[RequestTrace]:
    """Return the requests of a table that `to_table` made."""
    columns = {name: table[name].to_pylist() for name in (*_REQUIRED, *_NULLABLE)}
    gaps, tokens = _arrays(table["chunk_gap_us"]), _arrays(table["chunk_tokens"])
    found = []
    for row in range(table.num_rows):
        values = {name: column[row] for name, column in columns.items()}
        start_us = values["sent_ns"] // RESOLUTION_NS
        stamps = (start_us + numpy.cumsum(gaps[row])) * RESOLUTION_NS
        found.append(
            RequestTrace(
                **values,
                chunk_ns=times(stamps.tolist()),
                chunk_tokens=counts(tokens[row].tolist()),
            )
        )
    return found


def _gaps_us(trace: RequestTrace) -> numpy.typing.NDArray[numpy.int64]:
    stamps = numpy.array(trace.chunk_ns, dtype=numpy.int64) // RESOLUTION_NS
    return numpy.diff(stamps, prepend=trace.sent_ns // RESOLUTION_NS)


def _lists(values: Sequence[Any], kind: str) -> Any:
    import pyarrow

    offsets = numpy.cumsum([0, *(len(each) for each in values)], dtype=numpy.int32)
    flat = numpy.concatenate(
        [numpy.zeros(0, kind), *(numpy.asarray(each, kind) for each in values)]
    )
    return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(flat, getattr(pyarrow, kind)()))


def _arrays(column: Any) -> list[numpy.typing.NDArray[numpy.int64]]:
    return [numpy.asarray(each.values.to_numpy(zero_copy_only=False)) for each in column]
