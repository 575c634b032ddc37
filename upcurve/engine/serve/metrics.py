"""What the server tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from upcurve.engine.execute.loop import EngineLoop
from upcurve.engine.memory.memory import Usage

# Seconds; from a small model on a fast GPU to a queue that is minutes long.
FIRST_TOKEN_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0),
)
STEP_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5),
)


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
        self.prompt_tokens = Counter(
            "upcurve_prompt_tokens", "Prompt tokens of accepted requests.", registry=self.registry
        )
        self.generated_tokens = Counter(
            "upcurve_generated_tokens", "Tokens generated.", registry=self.registry
        )
        self.first_token = Histogram(
            "upcurve_time_to_first_token_seconds",
            "From the arrival of a request at the engine to its first token.",
            buckets=FIRST_TOKEN_BUCKETS,
            registry=self.registry,
        )
        self.inter_token = Histogram(
            "upcurve_inter_token_latency_seconds",
            "Between two tokens of a request, both as the engine delivers them.",
            buckets=STEP_BUCKETS,
            registry=self.registry,
        )
        self.step = Histogram(
            "upcurve_step_seconds",
            "One step of the engine, from scheduling to the drawn tokens.",
            buckets=STEP_BUCKETS,
            registry=self.registry,
        )

    def watch(self, loop: EngineLoop) -> None:
        """Read the gauges from an engine whenever they are asked for."""
        memory = loop.engine.memory
        gauges: dict[str, tuple[str, Callable[[], int]]] = {
            "requests_running": ("Requests that own memory.", lambda: loop.counts()[0]),
            "requests_waiting": ("Requests not admitted yet.", lambda: loop.counts()[1]),
            **_usage_gauges(memory.usage),
        }
        for name, (text, read) in gauges.items():
            Gauge(f"upcurve_{name}", text, registry=self.registry).set_function(read)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def _usage_gauges(usage: Callable[[], Usage]) -> dict[str, tuple[str, Callable[[], int]]]:
    return {
        "kv_pages_used": ("KV pages that requests own.", lambda: usage().pages),
        "kv_pages_total": ("KV pages that there are.", lambda: usage().total_pages),
        "state_slots_used": ("Recurrent-state slots in use.", lambda: usage().slots),
        "state_slots_total": ("Recurrent-state slots that there are.", lambda: usage().total_slots),
    }
