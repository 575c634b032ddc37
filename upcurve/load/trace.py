"""What happened to each request: timestamps and token counts, and their Parquet form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import pyarrow as pa


@dataclass(slots=True)
class RequestTrace:
    """One request; times are nanoseconds of the client's monotonic clock."""

    index: int
    stream: int
    """Which of the concurrent streams sent it."""
    warmup: bool
    scheduled_ns: int
    """When its stream was free to send it."""
    sent_ns: int
    end_ns: int = 0
    """When the response, or the attempt, was over."""
    first_byte_ns: int | None = None
    chunk_ns: list[int] = field(default_factory=list)
    """When each chunk that holds output arrived."""
    chunk_tokens: list[int] = field(default_factory=list)
    """Output tokens in each of them."""
    tokens_exact: bool = False
    """Whether the server named the tokens of every chunk; else they are spread evenly."""
    prompt_tokens: int | None = None
    """As the server counts."""
    output_tokens: int = 0
    """As the server counts, or as chunks came where it does not say."""
    finish_reason: str | None = None
    status: int | None = None
    """HTTP status."""
    failure: str | None = None
    """None, or connect, timeout, http_4xx, http_5xx, cut, malformed, server_error, no_output."""
    detail: str | None = None
    """What the failure said."""

    @property
    def first_content_ns(self) -> int:
        """When the first output token arrived; only for requests that succeeded."""
        return self.chunk_ns[0]

    @property
    def last_ns(self) -> int:
        """When the last output token arrived; only for requests that succeeded."""
        return self.chunk_ns[-1]


SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("stream", pa.int32()),
        ("warmup", pa.bool_()),
        ("scheduled_ns", pa.int64()),
        ("sent_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("first_byte_ns", pa.int64()),
        ("chunk_ns", pa.list_(pa.int64())),
        ("chunk_tokens", pa.list_(pa.int32())),
        ("tokens_exact", pa.bool_()),
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("status", pa.int16()),
        ("failure", pa.string()),
        ("detail", pa.string()),
    ]
)


def to_table(traces: Sequence[RequestTrace]) -> pa.Table:
    """Return the traces as a table with one row a request."""
    names = [each.name for each in fields(RequestTrace)]
    columns = {name: [getattr(trace, name) for trace in traces] for name in names}
    return pa.table(columns, schema=SCHEMA)


def from_table(table: pa.Table) -> list[RequestTrace]:
    """Return the traces that `to_table` wrote."""
    return [RequestTrace(**row) for row in table.to_pylist()]
