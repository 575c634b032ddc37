"""Requests -> the figures of one point."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from upcurve.errors import InputError
from upcurve.load.arrivals import ClosedLoop, Load, OpenLoop
from upcurve.load.health import ClientHealth
from upcurve.load.limits import Limits
from upcurve.load.pace import Pace
from upcurve.load.statistics import LOW_MINIMUM_SAMPLES, statistics
from upcurve.load.steady import (
    Span,
    full_span,
    mean_in_flight,
    steady_span,
    tokens_within,
    whole_span,
)
from upcurve.load.trace import RequestTrace
from upcurve.load.verdict import marks, warnings
from upcurve.load.workload import Workload

LENGTH_FAILURES = ("short_output", "long_output")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a request must keep to count as good: limits in ms, None where there is none."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            InputError: none is given, or one is not positive and finite.
        """
        given = [each for each in (self.ttft_ms, self.tpot_ms) if each is not None]
        if not given or not all(0 < each < math.inf for each in given):
            mend = "give e.g. ttft=1000,tpot=25"
            raise InputError("goodput", "no limit above 0 ms", mend)


def point_metrics(
    traces: Sequence[RequestTrace],
    health: ClientHealth,
    workload: Workload,
    load: Load,
    *,
    gpus: int,
    limits: Limits | None = None,
    goal: Goal | None = None,
) -> dict[str, Any]:
    """Return what `bench --json` prints for one point; figures that no request carries are None.

    Warm-up requests count nowhere. Failed requests count in `requests`, `failed`, `failures` and
    as requests in flight, never in latencies or throughput. Latencies run from the moment of
    sending; in an open loop, from the moment at which the request was due.

    Args:
        traces: the requests of one point, as `LoadClient.measure` returned them.
        health: how the client fared.
        workload: what was asked for.
        load: when it was asked for.
        gpus: GPUs that throughput is divided by.
        limits: what the client can carry on this machine; None where it is not calibrated.
        goal: limits of goodput.
    """
    measured = [each for each in traces if not each.warm_up]
    good = [each for each in measured if each.failure is None]
    whole = whole_span(measured)
    steady = steady_span(measured, load)
    paces = [Pace.of(each) for each in good]
    chunks = sum(each.arrivals for each in paces)
    inside = [] if steady is None else [n for n, each in enumerate(good) if _inside(each, steady)]
    point: dict[str, Any] = {
        "concurrency": _concurrency(measured, load, whole),
        "isl": workload.isl,
        "osl": workload.osl,
        "rate": load.rate if isinstance(load, OpenLoop) else None,
        "requests": len(measured),
        "failed": len(measured) - len(good),
        "failures": dict(
            sorted(Counter(each.failure for each in measured if each.failure).items())
        ),
        "duration_s": whole.seconds,
        "steady_state": None
        if steady is None
        else {
            "start_s": (steady.start_ns - whole.start_ns) / 1e9,
            "end_s": (steady.end_ns - whole.start_ns) / 1e9,
            **_throughput(good, workload, steady, gpus),
            **_latencies([good[n] for n in inside], [paces[n] for n in inside], load),
        },
        **_throughput(good, workload, whole, gpus),
        **_latencies(good, paces, load),
        "chunk_gap_ms": statistics(
            numpy.concatenate([numpy.zeros(0), *(each.chunk_gaps_ms for each in paces)])
        ),
        "first_answer_ms": statistics(
            [
                (each.first_answer_ns - _start(each, load)) / 1e6
                for each in good
                if each.first_answer_ns is not None
            ]
        ),
        "dispatch_delay_ms": statistics(
            [(each.sent_ns - each.scheduled_ns) / 1e6 for each in measured]
        ),
        "request_rate": len(good) / whole.seconds if whole.seconds > 0 else None,
        "input_tokens": statistics([_input_tokens(each, workload) for each in good]),
        "output_tokens": statistics([each.tokens for each in good]),
        "goodput": None
        if goal is None
        else _goodput(good, paces, len(measured), load, goal, whole),
        "output_length_ok": bool(good)
        and all(each.requested_tokens in (None, each.tokens) for each in good)
        and not any(each.failure in LENGTH_FAILURES for each in measured),
        "chunk_coalescing": sum(each.tokens for each in paces) / chunks if chunks else None,
        **_delivered(measured, load),
        "finish_reasons": dict(
            sorted(Counter(each.finish_reason or "none" for each in good).items())
        ),
        "client": {
            "lag_p99_ms": health.lag_p99_ms,
            "cpu_s": health.cpu_s,
            "saturated": health.saturated,
            "busy": health.busy,
            "workers": health.workers,
            "memory_mb": health.memory_mb,
            "chunks_per_s": chunks / whole.seconds if whole.seconds > 0 else None,
            "calibration": None if limits is None else limits.facts(),
            "load": None
            if limits is None or whole.seconds <= 0
            else limits.share(chunks / whole.seconds),
        },
    }
    point["client"]["marks"] = marks(point)
    point["client"]["trusted"] = not point["client"]["marks"]
    point["warnings"] = warnings(point, traces, good, workload)
    return point


def _start(trace: RequestTrace, load: Load) -> int:
    return trace.scheduled_ns if isinstance(load, OpenLoop) else trace.sent_ns


def _inside(trace: RequestTrace, span: Span) -> bool:
    assert trace.last_ns is not None, "a request without failure has content"
    return span.holds(trace.sent_ns, trace.last_ns)


def _input_tokens(trace: RequestTrace, workload: Workload) -> int:
    if trace.prompt_tokens is not None:
        return trace.prompt_tokens
    return workload.isl if trace.input_tokens is None else trace.input_tokens


def _latencies(good: Sequence[RequestTrace], paces: Sequence[Pace], load: Load) -> dict[str, Any]:
    ttft, e2e = [], []
    for each in good:
        assert each.first_content_ns is not None, "a request without failure has content"
        assert each.last_ns is not None, "a request without failure has content"
        ttft.append((each.first_content_ns - _start(each, load)) / 1e6)
        e2e.append((each.last_ns - _start(each, load)) / 1e6)
    tpot = numpy.array([each.tpot_ms for each in paces if each.tpot_ms is not None])
    gaps = numpy.concatenate([numpy.zeros(0), *(each.gaps_ms for each in paces)])
    return {
        # Half of the users are slower than 1000 / median TPOT, half are faster.
        "interactivity": 1000 / float(numpy.median(tpot)) if len(tpot) else None,
        "interactivity_per_user": statistics(1000 / tpot, LOW_MINIMUM_SAMPLES),
        "ttft_ms": statistics(ttft),
        "tpot_ms": statistics(tpot),
        "itl_ms": statistics(gaps),
        "e2e_ms": statistics(e2e),
    }


def _throughput(
    good: Sequence[RequestTrace], workload: Workload, span: Span, gpus: int
) -> dict[str, float | None]:
    tokens = [tokens_within(each, _input_tokens(each, workload), span) for each in good]
    into, out = sum(each for each, _ in tokens), sum(each for _, each in tokens)
    if span.seconds <= 0 or out == 0:
        return dict.fromkeys(("tput_per_gpu", "input_tput_per_gpu", "output_tput_per_gpu"))
    return {
        "tput_per_gpu": (into + out) / span.seconds / gpus,
        "input_tput_per_gpu": into / span.seconds / gpus,
        "output_tput_per_gpu": out / span.seconds / gpus,
    }


def _concurrency(measured: Sequence[RequestTrace], load: Load, whole: Span) -> int:
    """Return the asked-for requests in flight; of an open loop those that came to be, rounded."""
    if isinstance(load, ClosedLoop):
        return load.concurrency
    return max(1, round(mean_in_flight(measured, whole))) if whole.seconds > 0 else 1


def _delivered(measured: Sequence[RequestTrace], load: Load) -> dict[str, float | None]:
    """Return the load that was really there, where it was asked for in full."""
    if isinstance(load, OpenLoop):
        due = [each.scheduled_ns for each in measured]
        sent = [each.sent_ns for each in measured]
        spans = [max(each) - min(each) if each else 0 for each in (due, sent)]
        share = spans[0] / spans[1] if min(spans) > 0 else None
        return {
            "delivered_concurrency": None,
            "delivered_rate": (len(sent) - 1) / spans[1] * 1e9 if spans[1] else None,
            "delivered_share": share,
        }
    span = full_span(measured)
    mean = None if span is None else mean_in_flight(measured, span)
    return {
        "delivered_concurrency": mean,
        "delivered_rate": None,
        "delivered_share": None if mean is None else mean / load.concurrency,
    }


def _goodput(
    good: Sequence[RequestTrace],
    paces: Sequence[Pace],
    sent: int,
    load: Load,
    goal: Goal,
    whole: Span,
) -> dict[str, Any]:
    """Return the requests that kept the goal: per second, and as a share of all that were sent."""
    kept = 0
    for each, pace in zip(good, paces, strict=True):
        assert each.first_content_ns is not None, "a request without failure has content"
        ttft_ms = (each.first_content_ns - _start(each, load)) / 1e6
        kept += (goal.ttft_ms is None or ttft_ms <= goal.ttft_ms) and (
            goal.tpot_ms is None or pace.tpot_ms is None or pace.tpot_ms <= goal.tpot_ms
        )
    return {
        "ttft_limit_ms": goal.ttft_ms,
        "tpot_limit_ms": goal.tpot_ms,
        "requests_per_s": kept / whole.seconds if whole.seconds > 0 else None,
        "share": kept / sent if sent else None,
    }
