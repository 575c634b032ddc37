"""Requests written by hand, for tests that compute their figures by hand."""

from __future__ import annotations

from hypothesis import strategies as st

from upcurve.load.trace import RequestTrace, counts, times

MS = 1_000_000


def trace(*, sent=0, chunks=((10, 1), (20, 1), (30, 1)), **changes):
    """Return a request; `sent` and chunk times in ms, chunks as (time, tokens)."""
    stamps = times(round(time * 1000) * 1000 for time, _ in chunks)
    tokens = counts(count for _, count in chunks)
    values = {
        "stream": 0,
        "warm_up": False,
        "scheduled_ns": round(sent * MS),
        "sent_ns": round(sent * MS),
        "ended_ns": stamps[-1] if stamps else round(sent * MS),
        "first_byte_ns": stamps[0] if stamps else None,
        "first_content_ns": stamps[0] if stamps else None,
        "last_ns": stamps[-1] if stamps else None,
        "chunk_ns": stamps,
        "chunk_tokens": tokens,
        "input_tokens": 100,
        "requested_tokens": sum(tokens),
        "prompt_tokens": 100,
        "output_tokens": sum(tokens),
        "counted_tokens": sum(tokens),
        "finish_reason": "length",
        "http_status": 200,
    }
    return RequestTrace(**(values | changes))


def failed(kind="http_5xx", *, sent=0, ended=5, **changes):
    """Return a request that failed."""
    return trace(
        sent=sent,
        chunks=(),
        **{
            "ended_ns": round(ended * MS),
            "failure": kind,
            "detail": "broken",
            "prompt_tokens": None,
            "output_tokens": None,
            "counted_tokens": None,
            "finish_reason": None,
        }
        | changes,
    )


answers = st.lists(st.tuples(st.floats(0.1, 100), st.integers(1, 8)), min_size=2, max_size=12).map(
    lambda steps: trace(
        chunks=tuple(
            (sum(gap for gap, _ in steps[: index + 1]), tokens)
            for index, (_, tokens) in enumerate(steps)
        )
    )
)
