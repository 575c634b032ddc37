"""Requests written by hand, for tests that compute their figures by hand."""

from __future__ import annotations

from hypothesis import strategies as st

from upcurve.load.trace import RequestTrace

MS = 1_000_000


def trace(*, sent=0, chunks=((10, 1), (20, 1), (30, 1)), **changes):
    """Return a request; `sent` and chunk times in ms, chunks as (time, tokens)."""
    times = tuple(round(time * MS) for time, _ in chunks)
    tokens = tuple(count for _, count in chunks)
    values = {
        "stream": 0,
        "warm_up": False,
        "scheduled_ns": round(sent * MS),
        "sent_ns": round(sent * MS),
        "ended_ns": times[-1] if times else round(sent * MS),
        "first_byte_ns": times[0] if times else None,
        "first_content_ns": times[0] if times else None,
        "last_ns": times[-1] if times else None,
        "chunk_ns": times,
        "chunk_tokens": tokens,
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
