"""Spans of a point: when the load was really there, and what was done meanwhile."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from upcurve.load.arrivals import Load, OpenLoop
from upcurve.load.trace import RequestTrace

STEADY_SHARE = 0.9
"""Share of the asked-for streams that must be in flight."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time in ns of the client's clock."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end_ns - self.start_ns) / 1e9

    def holds(self, start_ns: int, end_ns: int) -> bool:
        """Whether another span lies in this one."""
        return self.start_ns <= start_ns and end_ns <= self.end_ns


def steady_span(traces: Sequence[RequestTrace], load: Load) -> Span | None:
    """Return the span that stands for the load, without ramp-up and drain; None where none does.

    In a closed loop: the longest with at least 90 % of the streams in flight. In an open loop:
    from the end of the ramp until the last arrival.
    """
    if not traces:
        return None
    first_ns = min(each.sent_ns for each in traces)
    if isinstance(load, OpenLoop):
        start_ns = min(each.scheduled_ns for each in traces) + round(load.ramp_s * 1e9)
        span = Span(max(start_ns, first_ns), max(each.scheduled_ns for each in traces))
        return span if span.end_ns > span.start_ns else None
    # From the moment that a slot was free: the instant between two requests is no gap.
    spans = [Span(each.scheduled_ns, each.ended_ns) for each in traces]
    best = longest_span(spans, math.ceil(STEADY_SHARE * load.concurrency))
    # A slot is free an instant before its first request is sent, where the run begins.
    return None if best is None else Span(max(best.start_ns, first_ns), best.end_ns)


def whole_span(traces: Sequence[RequestTrace]) -> Span:
    """Return the span from the first request sent to the last end; empty where there is none."""
    return Span(
        min((each.sent_ns for each in traces), default=0),
        max((each.ended_ns for each in traces), default=0),
    )


def longest_span(spans: Sequence[Span], target: int) -> Span | None:
    """Return the longest span in which at least `target` of the spans are open, or None."""
    # At one instant starts come before ends: a stream that goes on has never left.
    changes = sorted(
        [(each.start_ns, 0, 1) for each in spans] + [(each.end_ns, 1, -1) for each in spans]
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


def full_span(traces: Sequence[RequestTrace]) -> Span | None:
    """Return the span in which all streams of a closed loop had requests to send, or None.

    From the start of the last stream to the first end of a stream's last request: in it the
    delivered concurrency is the asked-for one, unless the client was late.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for each in traces:
        first[each.stream] = min(first.get(each.stream, each.sent_ns), each.sent_ns)
        last[each.stream] = max(last.get(each.stream, each.ended_ns), each.ended_ns)
    if not first:
        return None
    span = Span(max(first.values()), min(last.values()))
    return span if span.end_ns > span.start_ns else None


def mean_in_flight(traces: Sequence[RequestTrace], span: Span) -> float:
    """Return the time-average of requests in flight: by Little's law, rate times latency."""
    inside = sum(
        max(0, min(each.ended_ns, span.end_ns) - max(each.sent_ns, span.start_ns))
        for each in traces
    )
    return inside / (span.end_ns - span.start_ns)


def tokens_within(trace: RequestTrace, input_tokens: int, span: Span) -> tuple[float, int]:
    """Return the input and output tokens of a request that fall into (start, end] of a span.

    Output tokens count where they arrive. When the input was processed is not visible: it is
    spread evenly from sending to the first token, so that spans add up to the whole.
    """
    assert trace.first_content_ns is not None, "a request without failure has content"
    prefill_ns = trace.first_content_ns - trace.sent_ns
    overlap = min(trace.first_content_ns, span.end_ns) - max(trace.sent_ns, span.start_ns)
    share = max(0, overlap) / prefill_ns if prefill_ns > 0 else 0.0
    return share * input_tokens, output_within(trace, span)


def output_within(trace: RequestTrace, span: Span) -> int:
    """Return the output tokens of a request, failed or not, that arrive in (start, end]."""
    first = bisect_right(trace.chunk_ns, span.start_ns)
    last = bisect_right(trace.chunk_ns, span.end_ns)
    return sum(trace.chunk_tokens[first:last])
