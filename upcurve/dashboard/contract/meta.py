"""Answers that say what there is: meta, series, overview, hardware."""

from __future__ import annotations

from typing import Literal

from upcurve.dashboard.contract.common import Answer, Axis, Flag, Group, Interval, Preset, Segment
from upcurve.dashboard.contract.common import Status as ReadingStatus


class Counts(Answer):
    """How much the store holds."""

    series: int
    runs: int
    points: int


class Metric(Answer):
    """What a history can follow."""

    name: str
    unit: str
    higher_is_better: bool
    along_curve: bool
    """Whether it is read at an interactivity (`at`); else only at a `concurrency`."""


class Meta(Answer):
    """`GET /api/v1/meta`: asked for once, when the page opens."""

    api: Literal[1]
    version: str
    """Of upcurve."""
    store: str
    """Name of the store, passwords hidden."""
    store_version: str
    """Changes with the store's content; part of every ETag."""
    live: bool
    """Whether /events works: false in a static export."""
    writes: bool
    """Whether POST /runs is on: there is a token."""
    exported_at: str | None
    """When a static export was made; null where it is no export."""
    counts: Counts
    groups: list[Group]
    """Newest first, at most 500; `groups_left_off` says how many more there are."""
    groups_left_off: int
    x_axes: list[Axis]
    y_axes: list[Axis]
    metrics: list[Metric]
    rules: list[str]
    tiers: list[str]
    presets: list[Preset]
    """Only those whose series the store holds."""


class SeriesItem(Answer):
    """One series of the store."""

    name: str
    models: list[str]
    hardware: list[str]
    engines: list[str]
    """Engine and version."""
    precisions: list[str]
    groups: list[str]
    """Ids of the groups that it has points in."""
    runs: int
    points: int
    fingerprints: int
    first_measured_on: str | None
    last_measured_on: str | None


class Facets(Answer):
    """Values that a filter can choose among, over the whole store."""

    models: list[str]
    hardware: list[str]
    precisions: list[str]
    engines: list[str]
    """Without version."""


class SeriesList(Answer):
    """`GET /api/v1/series`."""

    total: int
    """That pass the filter."""
    offset: int
    items: list[SeriesItem]
    """Newest first."""
    facets: Facets


class TierReading(Answer):
    """The best series of a group at one interactivity, and what became of it."""

    interactivity: float
    best: str | None
    """Name of the series with the highest throughput; null where none reaches."""
    hardware: str | None
    tput_per_gpu: float | None
    interval: Interval | None
    status: ReadingStatus | None
    segment: Segment | None
    usd_per_million_tokens: float | None
    flags: list[Flag]
    change: Change | None


class Change(Answer):
    """The newest build of the best series' history against the build before it."""

    before: str
    """Label of a build."""
    after: str
    series: list[str]
    """Names of the series before and after, to open the comparison."""
    ratio: float | Literal["inf"] | None
    ratio_interval: Interval | None
    verdict: Literal["better", "worse", "no change shown", "one run", "not comparable"]
    """By the interval; "one run" where there is none."""
    flags: list[Flag]


class OverviewRow(Answer):
    """One group at the chosen tiers."""

    group: Group
    tiers: list[TierReading]
    accuracy: AccuracyGlance | None
    """Of the newest points with accuracy; null where none was measured."""


class AccuracyGlance(Answer):
    """How accuracy stands in a group."""

    checked: int
    failed: int


class Overview(Answer):
    """`GET /api/v1/overview`."""

    tiers: list[float]
    total: int
    offset: int
    rows: list[OverviewRow]
    assumptions: list[str]


class Specification(Answer):
    """One GPU by its vendor's data; rates are dense, per GPU."""

    hardware: str
    vendor: str
    architecture: str
    hbm_gb: float
    hbm_tb_per_s: float
    bf16_dense_tflops: float
    fp8_dense_tflops: float
    fp4_dense_tflops: float | None
    tdp_w: float
    all_in_kw: dict[str, float]
    """Date of the estimate -> kW per GPU, with its share of machine and building."""
    scale_up_gpus: int
    scale_up_gb_per_s_one_way: float


class PriceRow(Answer):
    """One dated price."""

    hardware: str
    tier: str
    valid_from: str
    usd_per_gpu_hour: float
    holds: bool
    """Whether it is the one that holds on the date asked for."""


class Hardware(Answer):
    """`GET /api/v1/hardware`."""

    on: str
    specifications: list[Specification]
    prices: list[PriceRow]
    sources: list[str]


OverviewRow.model_rebuild()
TierReading.model_rebuild()
