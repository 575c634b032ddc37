"""Whether a point's figures can be trusted, and what a reader must know about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from upcurve.load.health import BUSY_LIMIT, LAG_LIMIT_MS
from upcurve.load.limits import TRUSTED_SHARE
from upcurve.load.statistics import MINIMUM_SAMPLES
from upcurve.load.trace import RequestTrace
from upcurve.load.workload import Workload

DELIVERED_SHARE = 0.98
"""Share of the asked-for load below which a point did not carry the load that it is named for."""

BUFFERED = 1.5
"""Tokens that arrive together beyond which something between engine and client holds them back;
below, reads of several chunks are a busy machine, which the event loop's lag tells."""

FEW_SAMPLES = "fewer than 64 requests carry a median, and no p90 or p99"
"""The warning that every short point has: a sweep of many need not repeat it."""

STEADY_SPAN = 0.5
"""Share of a run below which its steady state is too short to stand for it."""


def marks(point: dict[str, Any]) -> list[dict[str, str]]:
    """Return why the client's own figures cannot be trusted; strict mode refuses such points.

    Each mark has a kind (client_load, loop_lag, delivered_concurrency, delivered_rate) and words.
    """
    client = point["client"]
    found = []
    if client["load"] is None:
        if client["busy"] > BUSY_LIMIT:
            words = f"a measuring process was {client['busy']:.0%} busy (limit {BUSY_LIMIT:.0%})"
            found.append({"kind": "client_load", "words": words})
    elif client["load"] > TRUSTED_SHARE:
        words = (
            f"the client read {client['chunks_per_s']:,.0f} chunks/s, {client['load']:.0%} of its "
            f"calibrated limit (trusted up to {TRUSTED_SHARE:.0%})"
        )
        found.append({"kind": "client_load", "words": words})
    if client["lag_p99_ms"] > LAG_LIMIT_MS:
        words = f"event loop {client['lag_p99_ms']:.1f} ms late at p99 (limit {LAG_LIMIT_MS:g} ms)"
        found.append({"kind": "loop_lag", "words": words})
    share = point["delivered_share"]
    if share is not None and share < DELIVERED_SHARE:
        if point["rate"] is None:
            words = (
                f"{point['delivered_concurrency']:.4g} of {point['concurrency']} requests were in "
                "flight while all streams had some to send"
            )
            found.append({"kind": "delivered_concurrency", "words": words})
        else:
            words = f"{share:.1%} of the rate that was drawn was sent"
            found.append({"kind": "delivered_rate", "words": words})
    return found


def warnings(
    point: dict[str, Any],
    traces: Sequence[RequestTrace],
    good: Sequence[RequestTrace],
    workload: Workload,
) -> list[str]:
    """Return what a reader of the figures must know, in words."""
    return [
        *_failure_warnings(traces),
        *(f"not to be trusted: {each['words']}" for each in point["client"]["marks"]),
        *_count_warnings(good, workload),
        *_pace_warnings(point, good),
        *_sample_warnings(point),
    ]


def _failure_warnings(traces: Sequence[RequestTrace]) -> list[str]:
    words = []
    for warm_up, noun in ((False, "requests"), (True, "warm-up requests")):
        sent = [each for each in traces if each.warm_up == warm_up]
        kinds = Counter(each.failure for each in sent if each.failure)
        for kind, count in sorted(kinds.items()):
            details = (each.detail for each in sent if each.failure == kind and each.detail)
            said = next(details, "")
            words.append(
                f"{count} of {len(sent)} {noun} failed: {kind}" + (f" ({said})" if said else "")
            )
    return words


def _count_warnings(good: Sequence[RequestTrace], workload: Workload) -> list[str]:
    words = []
    off = [each for each in good if each.requested_tokens not in (None, each.tokens)]
    if off:
        lengths = sorted({each.tokens for each in off})
        asked = sorted({each.requested_tokens for each in off if each.requested_tokens})
        words.append(
            f"{len(off)} of {len(good)} answers have {_range(lengths)} tokens, "
            f"{_range(asked)} were asked for"
        )
    differences = sorted(
        {
            each.prompt_tokens - each.input_tokens
            for each in good
            if each.prompt_tokens is not None and each.input_tokens is not None
        }
        - {0}
    )
    if differences:
        words.append(
            f"the server counts {_range(differences)} input tokens more than were sent "
            f"(nominal {workload.isl})"
        )
    if any(each.output_tokens is None for each in good):
        words.append("the server sends no usage: output tokens are counted from the stream")
    if any(
        each.counted_tokens is not None
        and each.output_tokens is not None
        and each.counted_tokens != each.output_tokens
        for each in good
    ):
        words.append("the server's token count differs from the token ids that it sent")
    cached = sum(each.cached_tokens or 0 for each in good)
    total = sum(each.prompt_tokens or each.input_tokens or 0 for each in good)
    if total and cached / total > 0.01 and not workload.shared_prefix:
        words.append(
            f"{100 * cached / total:.0f} % of the input came from the server's prefix cache: "
            "give another seed or restart the server"
        )
    return words


def _pace_warnings(point: dict[str, Any], good: Sequence[RequestTrace]) -> list[str]:
    words = []
    sent = sum(sum(each.chunk_tokens) for each in good) / max(
        1, sum(len(each.chunk_ns) for each in good)
    )
    together = point["chunk_coalescing"] or 0.0
    unseen = "times of single tokens are not observable, gaps are spread evenly"
    if sent > 1.05:
        words.append(f"the server sends {sent:.1f} tokens a chunk: {unseen}")
    elif together > BUFFERED:
        words.append(f"{together:.1f} tokens arrive together, in chunks of their own: {unseen}")
    if good and point["interactivity"] is None and max(each.tokens for each in good) > 1:
        words.append(
            "no pace: every answer came in one piece; turn off buffering between engine and client"
        )
    connects = sum(each.new_connection for each in good)
    if connects:
        words.append(
            f"{connects} of {len(good)} requests opened a connection: their TTFT includes it"
        )
    return words


def _sample_warnings(point: dict[str, Any]) -> list[str]:
    words = []
    succeeded = point["requests"] - point["failed"]
    steady = point["steady_state"]
    if steady is None and succeeded:
        words.append(
            "no steady state: 90 % of the streams were never in flight together"
            if point["rate"] is None
            else "no steady state: the arrivals end with the ramp"
        )
    elif steady is not None and point["duration_s"] > 0:
        share = (steady["end_s"] - steady["start_s"]) / point["duration_s"]
        if share < STEADY_SPAN:
            words.append(
                f"ramp-up and drain are {1 - share:.0%} of the run and weigh on its throughput: "
                "send more requests, or read steady_state"
            )
    if 0 < succeeded < MINIMUM_SAMPLES["p90"]:
        words.append(FEW_SAMPLES)
    return words


def _range(values: Sequence[int]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"
