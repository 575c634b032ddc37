"""What a measurement is: runs, points and what a series adds up to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from upcurve.records.layout import Layout

Source = Literal["sweep", "bench", "import"]
"""Which command measured a run: the sweep, the load client alone, or somebody else's client."""

Status = Literal["running", "complete", "interrupted", "failed"]
"""Where a run ended; its points are whole in every case."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One launch of an engine, one `bench` against a running one, or one group of imported rows.

    Whatever is unknown stays empty: the empty string, an empty dict, an empty list or None.
    """

    series: str
    """Name of the series that the run belongs to."""
    source: Source
    fingerprint: str
    """SHA-256 in hex over all that can change speed but parallelism and concurrency."""
    model: str
    hardware: str
    """GPU name as price and specification tables write it: MI355X, H200, ..."""
    started_at: datetime
    """Start of the run; aware of its time zone."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The recipe as it was asked for; {} where there was none."""
    engine: str = ""
    engine_version: str = ""
    engine_commit: str = ""
    image: str = ""
    """Container image with its digest."""
    precision: str = ""
    host: dict[str, Any] = field(default_factory=dict)
    """Name, CPU, cores, memory, operating system, kernel of the machine."""
    gpus: list[dict[str, Any]] = field(default_factory=list)
    """One dict per GPU: name, memory, ..."""
    software: dict[str, Any] = field(default_factory=dict)
    """Driver, runtime and library versions."""
    change: str | None = None
    """Link to the change (pull request) that the run measures."""
    harness_version: str = ""
    """Version of the client that measured."""


@dataclass(frozen=True, slots=True)
class PointRecord:
    """One measured operating point of a run: parallelism, concurrency, workload, repeat, metrics.

    Throughput is in tokens per second per GPU, interactivity in tokens per second per user.
    """

    isl: int
    """Input length in tokens."""
    osl: int
    """Output length in tokens."""
    tp: int
    """Tensor-parallel size."""
    gpus: int
    """GPUs used, prefill and decode together."""
    concurrency: int
    """Requests in flight; of an open loop the mean, rounded."""
    measured_at: datetime
    """When the point was measured; aware of its time zone."""
    tput_per_gpu: float
    interactivity: float
    repeat: int = 0
    """Which repetition of the same operating point, from 0."""
    input_tput_per_gpu: float | None = None
    output_tput_per_gpu: float | None = None
    tpot_ms: float | None = None
    """Median time per output token in ms."""
    ttft_ms: float | None = None
    """Median time to first token in ms."""
    requests: int | None = None
    failed: int | None = None
    result: dict[str, Any] = field(default_factory=dict)
    """What `bench --json` printed for the point; of an imported row its further columns."""
    accuracy: dict[str, Any] | None = None
    """Accuracy measured at this very operating point."""
    ep: int = 1
    """Expert-parallel size."""
    dp: int = 1
    """Data-parallel size: replicas."""
    prefill_gpus: int | None = None
    """GPUs that only prefill; None where prefill and decode share all."""
    decode_gpus: int | None = None
    """GPUs that only decode."""

    @classmethod
    def of_figures(
        cls,
        figures: dict[str, Any],
        layout: Layout,
        *,
        repeat: int,
        measured_at: datetime,
    ) -> PointRecord:
        """Return the record of a point whose figures `bench --json` would print.

        Its throughput and interactivity must be there: a point without them is none.
        """
        return cls(
            isl=figures["isl"],
            osl=figures["osl"],
            **asdict(layout),
            concurrency=figures["concurrency"],
            measured_at=measured_at,
            tput_per_gpu=figures["tput_per_gpu"],
            interactivity=figures["interactivity"],
            repeat=repeat,
            input_tput_per_gpu=figures["input_tput_per_gpu"],
            output_tput_per_gpu=figures["output_tput_per_gpu"],
            tpot_ms=figures["tpot_ms"]["p50"],
            ttft_ms=figures["ttft_ms"]["p50"],
            requests=figures["requests"],
            failed=figures["failed"],
            result=figures,
        )


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """What the store holds under one series name."""

    name: str
    models: tuple[str, ...]
    hardware: tuple[str, ...]
    workloads: frozenset[tuple[int, int]]
    """Pairs (isl, osl) that were measured."""
    runs: int
    points: int
    fingerprints: frozenset[str]
    first_measured_on: date | None
    """Day (UTC) of the first point; None for a series without points."""
    last_measured_on: date | None
