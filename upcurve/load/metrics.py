"""Requests -> the figures of one point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy

from upcurve.load.health import SATURATED_BUSY, SATURATED_LAG_MS, ClientHealth
from upcurve.load.pace import Values, arrivals, gaps_ms, output_tokens, paced, tpot_ms
from upcurve.load.steady import Span, steady_span, tokens_within
from upcurve.load.trace import RequestTrace
from upcurve.load.workload import Workload

MINIMUM_SAMPLES = {"p50": 1, "p90": 64, "p99": 662}
"""Fewest values that a percentile is given from: MLPerf's early-stopping table at 99 %."""

DELIVERED_SHARE = 0.98
"""Share of the asked-for concurrency below which the run did not carry the load it is named for."""

BUFFERED = 1.5
"""Tokens that arrive together beyond which something between engine and client holds them back;
below, reads of several chunks are a busy machine, which the event loop's lag tells."""

LENGTH_FAILURES = ("short_output", "long_output")


def point_metrics(
    traces: Sequence[RequestTrace],
    health: ClientHealth,
    workload: Workload,
    *,
    concurrency: int,
    gpus: int,
) -> dict[str, Any]:
    """Return what `bench --json` prints for one point; figures that no request carries are None.

    Warm-up requests count nowhere. Failed requests count in `requests`, `failed`, `failures` and
    as requests in flight, never in latencies or throughput.

    Args:
        traces: the requests of one point, as `measure` returned them.
        health: how the client fared.
        workload: what was asked for.
        concurrency: requests in flight that were asked for.
        gpus: GPUs that throughput is divided by.
    """
    measured = [each for each in traces if not each.warm_up]
    good = [each for each in measured if each.failure is None]
    start_ns = min((each.sent_ns for each in measured), default=0)
    end_ns = max((each.ended_ns for each in measured), default=0)
    duration_s = (end_ns - start_ns) / 1e9
    whole = _throughput(
        sum(_input_tokens(each, workload) for each in good),
        sum(output_tokens(each) for each in good),
        duration_s,
        gpus,
    )
    tpot = numpy.array([tpot_ms(each) for each in good if paced(each)])
    e2e = numpy.array([(_last(each) - each.sent_ns) / 1e6 for each in good])
    gaps = numpy.concatenate([numpy.zeros(0), *(gaps_ms(each) for each in good)])
    arrived = [arrivals(each)[1] for each in good]
    chunks = sum(len(each) for each in arrived)
    point: dict[str, Any] = {
        "concurrency": concurrency,
        "isl": workload.isl,
        "osl": workload.osl,
        "requests": len(measured),
        "failed": len(measured) - len(good),
        "failures": dict(
            sorted(Counter(each.failure for each in measured if each.failure).items())
        ),
        "duration_s": duration_s,
        "steady_state": _steady(measured, good, workload, concurrency, gpus, start_ns),
        **whole,
        "interactivity": 1000 / float(numpy.median(tpot)) if len(tpot) else None,
        "ttft_ms": statistics(numpy.array([(_first(each) - each.sent_ns) / 1e6 for each in good])),
        "tpot_ms": statistics(tpot),
        "itl_ms": statistics(gaps),
        "e2e_ms": statistics(e2e),
        "client": {
            "lag_p99_ms": health.lag_p99_ms,
            "cpu_s": health.cpu_s,
            "saturated": health.saturated,
        },
        "output_length_ok": bool(good)
        and all(output_tokens(each) == workload.osl for each in good)
        and not any(each.failure in LENGTH_FAILURES for each in measured),
        "chunk_coalescing": sum(int(each.sum()) for each in arrived) / chunks if chunks else None,
        # Little's law: rate x mean time in flight, over the whole run.
        "delivered_concurrency": sum(each.ended_ns - each.sent_ns for each in measured)
        / 1e9
        / duration_s
        if duration_s
        else None,
    }
    point["warnings"] = _warnings(point, traces, good, workload)
    return point


def statistics(values: Values) -> dict[str, float | int | None]:
    """Return mean, p50, p90, p99, min, max and count; None where the sample cannot carry it."""
    count = len(values)
    percentiles = {
        name: float(numpy.percentile(values, float(name[1:]))) if count >= minimum else None
        for name, minimum in MINIMUM_SAMPLES.items()
    }
    return {
        "mean": float(values.mean()) if count else None,
        **percentiles,
        "min": float(values.min()) if count else None,
        "max": float(values.max()) if count else None,
        "count": count,
    }


def _first(trace: RequestTrace) -> int:
    assert trace.first_content_ns is not None, "a request without failure has content"
    return trace.first_content_ns


def _last(trace: RequestTrace) -> int:
    assert trace.last_ns is not None, "a request without failure has content"
    return trace.last_ns


def _input_tokens(trace: RequestTrace, workload: Workload) -> int:
    return workload.isl if trace.prompt_tokens is None else trace.prompt_tokens


def _throughput(
    input_tokens: float, output: float, seconds: float, gpus: int
) -> dict[str, float | None]:
    if seconds <= 0 or output == 0:
        return dict.fromkeys(("tput_per_gpu", "input_tput_per_gpu", "output_tput_per_gpu"))
    return {
        "tput_per_gpu": (input_tokens + output) / seconds / gpus,
        "input_tput_per_gpu": input_tokens / seconds / gpus,
        "output_tput_per_gpu": output / seconds / gpus,
    }


def _steady(
    measured: Sequence[RequestTrace],
    good: Sequence[RequestTrace],
    workload: Workload,
    concurrency: int,
    gpus: int,
    start_ns: int,
) -> dict[str, float | None] | None:
    span = steady_span([Span(each.scheduled_ns, each.ended_ns) for each in measured], concurrency)
    if span is None:
        return None
    # A slot is free an instant before its first request is sent, where the run begins.
    span = Span(max(span.start_ns, start_ns), span.end_ns)
    tokens = [tokens_within(each, _input_tokens(each, workload), span) for each in good]
    seconds = (span.end_ns - span.start_ns) / 1e9
    return {
        "start_s": (span.start_ns - start_ns) / 1e9,
        "end_s": (span.end_ns - start_ns) / 1e9,
        **_throughput(
            sum(into for into, _ in tokens), sum(out for _, out in tokens), seconds, gpus
        ),
    }


def _warnings(
    point: dict[str, Any],
    traces: Sequence[RequestTrace],
    good: Sequence[RequestTrace],
    workload: Workload,
) -> list[str]:
    """Return what a reader of the figures must know, in words."""
    return [
        *_failure_warnings(traces),
        *_count_warnings(good, workload),
        *_trust_warnings(point, good),
    ]


def _failure_warnings(traces: Sequence[RequestTrace]) -> list[str]:
    words = []
    for warm_up, noun in ((False, "requests"), (True, "warm-up requests")):
        sent = [each for each in traces if each.warm_up == warm_up]
        counts = Counter(each.failure for each in sent if each.failure)
        for kind, count in sorted(counts.items()):
            details = (each.detail for each in sent if each.failure == kind and each.detail)
            said = next(details, "")
            words.append(
                f"{count} of {len(sent)} {noun} failed: {kind}" + (f" ({said})" if said else "")
            )
    return words


def _count_warnings(good: Sequence[RequestTrace], workload: Workload) -> list[str]:
    words = []
    lengths = sorted({output_tokens(each) for each in good} - {workload.osl})
    if lengths:
        wrong = sum(output_tokens(each) != workload.osl for each in good)
        words.append(
            f"{wrong} of {len(good)} answers have {_range(lengths)} tokens, "
            f"{workload.osl} were asked for"
        )
    inputs = {each.prompt_tokens for each in good if each.prompt_tokens is not None}
    inputs -= {workload.isl}
    if inputs:
        words.append(
            f"the server counts {_range(sorted(inputs))} input tokens, {workload.isl} were sent"
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
    total = sum(_input_tokens(each, workload) for each in good)
    if total and cached / total > 0.01:
        words.append(
            f"{100 * cached / total:.0f} % of the input came from the server's prefix cache: "
            "give another seed or restart the server"
        )
    return words


def _trust_warnings(point: dict[str, Any], good: Sequence[RequestTrace]) -> list[str]:
    words = []
    client = point["client"]
    if client["saturated"]:
        words.append(
            f"the client was too busy to be trusted: {client['cpu_s']:.1f} CPU seconds in "
            f"{point['duration_s']:.1f} s (limit {SATURATED_BUSY:.0%}), event loop "
            f"{client['lag_p99_ms']:.1f} ms late at p99 (limit {SATURATED_LAG_MS:g} ms)"
        )
    sent = sum(sum(each.chunk_tokens) for each in good) / max(
        1, sum(len(each.chunk_ns) for each in good)
    )
    together = point["chunk_coalescing"] or 0.0
    unseen = "times of single tokens are not observable, gaps are spread evenly"
    if sent > 1.05:
        words.append(f"the server sends {sent:.1f} tokens a chunk: {unseen}")
    elif together > BUFFERED:
        words.append(f"{together:.1f} tokens arrive together, in chunks of their own: {unseen}")
    if point["interactivity"] is None and point["osl"] > 1 and point["failed"] < point["requests"]:
        words.append(
            "no pace: every answer came in one piece; turn off buffering between engine and client"
        )
    delivered, asked = point["delivered_concurrency"], point["concurrency"]
    if delivered is not None and delivered < DELIVERED_SHARE * asked and not point["failed"]:
        words.append(
            f"{delivered:.3g} of {asked} requests were in flight on average: "
            "ramp-up and drain weigh on the whole run; send more requests or read steady_state"
        )
    if point["steady_state"] is None and point["failed"] < point["requests"]:
        words.append(f"no steady state: 90 % of {asked} streams were never in flight together")
    return words


def _range(values: Sequence[int]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"
