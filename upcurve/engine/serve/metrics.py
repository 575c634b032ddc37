"""What the server tells Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from upcurve.engine.execute.role import TransferCounts
from upcurve.engine.serve.messages import Capacity, PrefillWorker, Status, Step

# Seconds; from a small model on a fast GPU to a queue that is minutes long.
FIRST_TOKEN_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0),
)
STEP_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5),
)
BATCH_BUCKETS = tuple(float(2**power) for power in range(13))


class Histogram(Collector):
    """A histogram that takes many equal values at once, as the tokens of a step are."""

    def __init__(
        self, name: str, text: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._text = text
        self._bounds = (*buckets, float("inf"))
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float, count: int = 1) -> None:
        """Count a value, `count` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def collect(self) -> Iterable[Metric]:
        """Return it as Prometheus wants it; called for every scrape."""
        family = HistogramMetricFamily(self._name, self._text)
        bounds = map(floatToGoString, self._bounds)
        family.add_metric([], list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)
        yield family


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.finished = Counter(
            "upcurve_requests_finished",
            "Requests that have ended, by reason.",
            ["reason"],
            registry=self.registry,
        )
        for reason in ("stop", "length", "aborted", "failed"):
            self.finished.labels(reason)
        self.refused = Counter(
            "upcurve_requests_refused",
            "Requests that got a 429, because the queue was full.",
            registry=self.registry,
        )
        self.prompt_tokens = Counter(
            "upcurve_prompt_tokens", "Prompt tokens of accepted requests.", registry=self.registry
        )
        self.generated_tokens = Counter(
            "upcurve_generated_tokens", "Tokens generated.", registry=self.registry
        )
        self.first_token = Histogram(
            "upcurve_time_to_first_token_seconds",
            "From the arrival of a request at the engine to its first token.",
            FIRST_TOKEN_BUCKETS,
            self.registry,
        )
        self.inter_token = Histogram(
            "upcurve_inter_token_latency_seconds",
            "Between two tokens of a request, both as the engine delivers them.",
            STEP_BUCKETS,
            self.registry,
        )
        self.step_requests = Histogram(
            "upcurve_step_requests",
            "Requests that got a token from one step.",
            BATCH_BUCKETS,
            self.registry,
        )
        self.step_tokens = Histogram(
            "upcurve_step_tokens",
            "Tokens of prompts and outputs that one step computed.",
            BATCH_BUCKETS,
            self.registry,
        )
        self.step = Histogram(
            "upcurve_step_seconds",
            "One step of the engine, from scheduling to the drawn tokens.",
            STEP_BUCKETS,
            self.registry,
        )

    def watch(
        self, capacity: Capacity, status: Callable[[], Status], open_requests: Callable[[], int]
    ) -> None:
        """Read the gauges from an engine's last report whenever they are asked for."""
        gauges: dict[str, tuple[str, Callable[[], int]]] = {
            "requests_running": ("Requests that own memory.", lambda: status().running),
            "requests_waiting": (
                "Requests that own none, because they are new or were preempted.",
                lambda: max(0, open_requests() - status().running),
            ),
            "kv_pages_used": ("KV pages that requests own.", lambda: status().pages),
            "kv_pages_total": ("KV pages that there are.", lambda: capacity.total_pages),
            "state_slots_used": ("Recurrent-state slots in use.", lambda: status().slots),
            "state_slots_total": (
                "Recurrent-state slots that there are.",
                lambda: capacity.total_slots,
            ),
        }
        for name, (text, read) in gauges.items():
            Gauge(f"upcurve_{name}", text, registry=self.registry).set_function(read)
        self.registry.register(_Preemptions(status))

    def watch_transfers(
        self,
        role: str,
        counts: Callable[[], TransferCounts | None],
        workers: Callable[[], Sequence[PrefillWorker]],
    ) -> None:
        """Tell of prompts that are handed over, where there are any."""
        if role != "server":
            self.registry.register(_Transfers(role, counts, workers))

    def step_done(
        self, step: Step, first_tokens: Sequence[float], gaps: Mapping[float, int]
    ) -> None:
        """Count one report of the engine.

        Args:
            step: the report.
            first_tokens: seconds that requests have waited for their first token.
            gaps: seconds between two tokens of one request, and how many requests had them.
        """
        generated = len(first_tokens) + sum(gaps.values())
        if step.seconds is not None:
            self.step.observe(step.seconds)
            self.step_requests.observe(generated)
            self.step_tokens.observe(step.status.step_tokens)
        for seconds in first_tokens:
            self.first_token.observe(seconds)
        for seconds, count in gaps.items():
            self.inter_token.observe(seconds, count)
        self.generated_tokens.inc(generated)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Preemptions(Collector):
    """The engine counts them itself."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "upcurve_preemptions",
            "How often a request gave its memory to an earlier one and was computed anew.",
            value=self._status().preemptions,
        )


_TRANSFERS: tuple[tuple[str, str, str, str], ...] = (
    # Name, attribute of TransferCounts, whose, and what it is; gauges first.
    ("transfers_in_flight", "in_flight", "prefill decode", "Prompts that are being handed over."),
    (
        *("transfers_kept", "kept", "prefill decode"),
        "Reservations of memory without a request, which another engine may still use.",
    ),
    ("transfers_done", "done", "prefill decode", "Prompts that were handed over."),
    (
        *("transfers_failed", "failed", "prefill decode"),
        "Prompts that were not, by an error, silence or the end of the other engine.",
    ),
    (
        *("transfers_cancelled", "cancelled", "prefill decode"),
        "Prompts that were not, because their request was aborted.",
    ),
    ("transfers_retried", "retried", "decode", "Prompts that were asked for once more."),
    ("local_prefills", "local", "decode", "Prompts that no prefill worker could compute."),
    ("transfer_tokens", "tokens", "prefill decode", "Tokens of prompts that were handed over."),
    ("transfer_bytes", "bytes", "prefill", "Bytes of caches that were sent."),
    (
        *("transfer_seconds", "seconds", "prefill decode"),
        "From asking for a prompt until it was handed over, summed.",
    ),
    (
        *("transfer_exposed_seconds", "exposed_seconds", "prefill"),
        "From the first token until the prompt was handed over, summed.",
    ),
)
_GAUGES = ("in_flight", "kept")


class _Transfers(Collector):
    """The engine counts them itself."""

    def __init__(
        self,
        role: str,
        counts: Callable[[], TransferCounts | None],
        workers: Callable[[], Sequence[PrefillWorker]],
    ) -> None:
        self._role = role
        self._counts = counts
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        counts = self._counts() or TransferCounts()
        for name, attribute, roles, text in _TRANSFERS:
            if self._role in roles:
                family = GaugeMetricFamily if attribute in _GAUGES else CounterMetricFamily
                yield family(f"upcurve_{name}", text, value=getattr(counts, attribute))
        if self._role == "decode":
            up = GaugeMetricFamily(
                "upcurve_prefill_worker_up", "Whether it can be asked.", labels=["worker"]
            )
            for worker in self._workers():
                up.add_metric([worker.name], float(worker.state == "up"))
            yield up
