"""The time series by which each engine tells the same few facts, and what a scrape keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]
"""Sorted pairs of label and value."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One line of an exposition."""

    name: str
    labels: Labels
    value: float


@dataclass(frozen=True, slots=True)
class EngineSeries:
    """How one engine names its series. The first name that the server has is the one that counts.

    Empty: the engine has no such series.
    """

    engine: str
    prefix: str
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    kv_cache_usage: tuple[str, ...] = ()
    """Gauges from 0 to 1."""
    kv_cache_used_of: tuple[str, str] | None = None
    """Where there is no such gauge: used and total, in any unit."""
    prompt_tokens: tuple[str, ...] = ()
    generation_tokens: tuple[str, ...] = ()
    preemptions: tuple[str, ...] = ()
    note: str | None = None
    """What a reader of the figures must know."""


COUNTED_AT_THE_END = (
    "the server counts {} when a request ends, so that a span shows requests that ended in it"
)

ENGINES = (
    # https://docs.vllm.ai/en/latest/usage/metrics/; gpu_cache_usage_perc is the name before 0.11.
    EngineSeries(
        engine="vllm",
        prefix="vllm:",
        running=("vllm:num_requests_running",),
        waiting=("vllm:num_requests_waiting",),
        kv_cache_usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        prompt_tokens=("vllm:prompt_tokens_total",),
        generation_tokens=("vllm:generation_tokens_total",),
        preemptions=("vllm:num_preemptions_total",),
    ),
    # https://docs.sglang.io/references/production_metrics.html; a retraction is a preemption.
    EngineSeries(
        engine="sglang",
        prefix="sglang:",
        running=("sglang:num_running_reqs",),
        waiting=("sglang:num_queue_reqs",),
        kv_cache_usage=("sglang:token_usage",),
        prompt_tokens=("sglang:prompt_tokens_total",),
        generation_tokens=("sglang:generation_tokens_total",),
        preemptions=("sglang:num_retracted_requests_total",),
        note=COUNTED_AT_THE_END.format("tokens"),
    ),
    # https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (GET /metrics)
    EngineSeries(
        engine="llama.cpp",
        prefix="llamacpp:",
        running=("llamacpp:requests_processing",),
        waiting=("llamacpp:requests_deferred",),
        kv_cache_usage=("llamacpp:kv_cache_usage_ratio",),
        prompt_tokens=("llamacpp:prompt_tokens_total",),
        generation_tokens=("llamacpp:tokens_predicted_total",),
        note=COUNTED_AT_THE_END.format("generated tokens"),
    ),
    EngineSeries(
        engine="upcurve",
        prefix="upcurve_",
        running=("upcurve_requests_running",),
        waiting=("upcurve_requests_waiting",),
        kv_cache_used_of=("upcurve_kv_pages_used", "upcurve_kv_pages_total"),
        prompt_tokens=("upcurve_prompt_tokens_total",),
        generation_tokens=("upcurve_generated_tokens_total",),
        preemptions=("upcurve_preemptions_total",),
    ),
)

LATENCY_HISTOGRAMS = frozenset(
    {
        "vllm:time_to_first_token_seconds",
        "vllm:time_per_output_token_seconds",
        "vllm:inter_token_latency_seconds",
        "vllm:e2e_request_latency_seconds",
        "vllm:request_queue_time_seconds",
        "sglang:time_to_first_token_seconds",
        "sglang:time_per_output_token_seconds",
        "sglang:inter_token_latency_seconds",
        "sglang:e2e_request_latency_seconds",
        "sglang:queue_time_seconds",
        "upcurve_time_to_first_token_seconds",
        "upcurve_inter_token_latency_seconds",
        "upcurve_step_seconds",
    }
)
"""Histograms of which the buckets are kept; of all others the sum and the count."""

_COPIES = frozenset({"tp_rank", "pp_rank"})
"""Ranks that tell the same fact of the same requests."""


def parse_exposition(text: str) -> Iterator[Reading]:
    """Read what is worth keeping of Prometheus' text format.

    Raises:
        ValueError: The text is something else.
    """
    for family in text_string_to_metric_families(text):
        histogram = family.type == "histogram" and family.name not in LATENCY_HISTOGRAMS
        for sample in family.samples:
            created = sample.name.endswith("_created")
            if not created and not (histogram and sample.name.endswith("_bucket")):
                yield Reading(sample.name, tuple(sorted(sample.labels.items())), sample.value)


def known_engine(names: Iterable[str]) -> EngineSeries | None:
    """Return the engine that has series of these names."""
    names = set(names)
    return next(
        (each for each in ENGINES if any(name.startswith(each.prefix) for name in names)), None
    )


def without_copies(values: dict[Labels, float]) -> list[float]:
    """Return one value for each part of the server, the largest that its ranks tell."""
    parts: dict[Labels, float] = {}
    for labels, value in values.items():
        part = tuple(pair for pair in labels if pair[0] not in _COPIES)
        parts[part] = max(value, parts.get(part, value))
    return list(parts.values())
