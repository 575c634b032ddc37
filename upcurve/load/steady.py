"""The steady state: the longest span in which nearly all streams are at work."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from upcurve.load.trace import RequestTrace

STEADY_SHARE = 0.9
"""Share of the asked-for streams that must be in flight."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time in ns of the client's clock."""

    start_ns: int
    end_ns: int


def steady_span(requests: Sequence[Span], concurrency: int) -> Span | None:
    """Return the longest span with at least 90 % of `concurrency` requests in flight, or None.

    Args:
        requests: from the moment that a slot was free until the request ended: so the instant
            between two requests of one stream is no gap.
        concurrency: streams that were asked for.
    """
    target = math.ceil(STEADY_SHARE * concurrency)
    # At one instant starts come before ends: a stream that goes on has never left.
    changes = sorted(
        [(each.start_ns, 0, 1) for each in requests] + [(each.end_ns, 1, -1) for each in requests]
    )
    best: Span | None = None
    in_flight, since = 0, 0
    for time_ns, _, change in changes:
        before, in_flight = in_flight, in_flight + change
        if before < target <= in_flight:
            since = time_ns
        elif (
            in_flight < target <= before
            and time_ns > since
            and (best is None or time_ns - since > best.end_ns - best.start_ns)
        ):
            best = Span(since, time_ns)
    return best


def tokens_within(trace: RequestTrace, input_tokens: int, span: Span) -> tuple[float, int]:
    """Return the input and output tokens of a request that fall into (start, end] of a span.

    Output tokens count where they arrive. When the input was processed is not visible: it is
    spread evenly from sending to the first token, so that spans add up to the whole.
    """
    first = bisect_right(trace.chunk_ns, span.start_ns)
    last = bisect_right(trace.chunk_ns, span.end_ns)
    output = sum(trace.chunk_tokens[first:last])
    assert trace.first_content_ns is not None, "a request without failure has content"
    prefill_ns = trace.first_content_ns - trace.sent_ns
    overlap = min(trace.first_content_ns, span.end_ns) - max(trace.sent_ns, span.start_ns)
    share = max(0, overlap) / prefill_ns if prefill_ns > 0 else 0.0
    return share * input_tokens, output
