"""Points on one server: the load, what the server and its GPUs did meanwhile, the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from upcurve.closing import Closing
from upcurve.load.arrivals import Load
from upcurve.load.client import LoadClient, Watch, most_workers
from upcurve.load.limits import Limits, Machine, default_path
from upcurve.load.metrics import Goal, point_metrics
from upcurve.load.steady import output_within, steady_span, whole_span
from upcurve.load.target import Target
from upcurve.load.telemetry import GpuSampler, MetricsScraper
from upcurve.load.trace import RequestTrace
from upcurve.load.workload import Workload

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Settings:
    """How points are measured, apart from their load."""

    gpus: int = 1
    """GPUs that throughput is divided by."""
    workers: int | None = None
    """Measuring processes at most; None: one per core but one."""
    timeout_s: float = 600.0
    goal: Goal | None = None
    """Limits of goodput."""
    metrics_url: str | None = None
    """The server's Prometheus page; None: /metrics, where there is one."""
    scrape: bool = True
    """Whether the server's metrics are read along the run."""
    gpu_indices: tuple[int, ...] | None = None
    """This machine's GPUs that the server runs on; None: all, where the server is local."""


@dataclass(frozen=True, slots=True)
class Result:
    """One measured point."""

    figures: dict[str, Any]
    """What `bench --json` prints for it."""
    traces: list[RequestTrace]
    telemetry: dict[str, Any] = field(default_factory=dict)
    """Tables (`pyarrow.Table`) of what was sampled along it: `server`, `gpus`."""


class Session(Closing):
    """Measures points on one server, from entering its context until leaving it."""

    def __init__(self, target: Target, settings: Settings) -> None:
        self.target = target
        self._settings = settings
        self._client = LoadClient(settings.workers, timeout_s=settings.timeout_s)
        self.limits = Limits.load(default_path(), Machine.this(most_workers(settings.workers)))
        """What this client can carry here; None where it is not calibrated."""

    def close(self) -> None:
        """End the measuring processes."""
        self._client.close()

    def probe(self, workload: Workload, watch: Watch | None = None) -> None:
        """Ask the server for one answer, and keep what it understands.

        Raises:
            InputError: nothing answers, or the server refuses the model, the key, the lengths.
            ClientError: the measuring process died.
        """
        self.target = self._client.probe(self.target, workload, watch)

    def point(
        self, workload: Workload, load: Load, *, warmup: int = 0, watch: Watch | None = None
    ) -> Result:
        """Measure one point; `probe` comes first, once.

        Raises:
            InputError: fewer requests than streams, or not so many distinct prompts.
            ClientError: a measuring process died.
        """
        scraper, sampler = self._scraper(), self._sampler()
        for each in (scraper, sampler):
            if each is not None:
                each.start()
        try:
            measured = self._client.measure(self.target, workload, load, warmup=warmup, watch=watch)
        finally:
            server = None if scraper is None else scraper.stop()
            gpus = None if sampler is None else sampler.stop()
        figures = point_metrics(
            measured.traces,
            measured.health,
            workload,
            load,
            gpus=self._settings.gpus,
            limits=self.limits,
            goal=self._settings.goal,
        )
        figures["server"] = figures["power"] = None
        if server is not None or gpus is not None:
            sent = [each for each in measured.traces if not each.warm_up]
            span = steady_span(sent, load) or whole_span(sent)
            figures["server"] = server and server.summary(span.start_ns, span.end_ns)
            tokens = sum(output_within(each, span) for each in sent)
            figures["power"] = gpus and gpus.summary(span.start_ns, span.end_ns, tokens)
        telemetry = {"server": server, "gpus": gpus}
        tables = {name: each.table() for name, each in telemetry.items() if each is not None}
        return Result(figures, measured.traces, tables)

    def _scraper(self) -> MetricsScraper | None:
        if not self._settings.scrape:
            return None
        key = self.target.api_key
        headers: Mapping[str, str] = {"Authorization": f"Bearer {key}"} if key else {}
        if self._settings.metrics_url is not None:
            return MetricsScraper(self._settings.metrics_url, headers=headers)
        return MetricsScraper.find(self.target.origin, headers)

    def _sampler(self) -> GpuSampler | None:
        indices = self._settings.gpu_indices
        if indices is None and self.target.host not in LOCAL_HOSTS:
            return None  # this machine's GPUs have nothing to do with that server
        return GpuSampler.find(indices)
