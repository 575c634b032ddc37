"""Answers that charts and tables are drawn from: frontier, limit, compare, history."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from upcurve.dashboard.contract.common import (
    Answer,
    Axis,
    Flag,
    Interval,
    Link,
    Segment,
    Status,
)


class ChartPoint(Answer):
    """One operating point on the chosen axes: the median of its repeats on each."""

    x: float
    y: float
    x_interval: Interval | None
    y_interval: Interval | None
    layout: str
    """In words: TP2 EP2, TP1 on 1 + 3 GPUs."""
    tp: int
    ep: int
    dp: int
    gpus: int
    prefill_gpus: int | None
    """Those that only prefill, where prefill and decode are apart."""
    concurrency: int
    repeats: int
    run: str
    """Of the newest repeat: opens its page."""
    point: int
    """Id of the newest repeat."""
    measured_on: str
    accuracy_passed: bool | None


class Line(Answer):
    """A curve in samples."""

    x: list[float]
    y: list[float]


class Band(Answer):
    """95 % interval along a curve."""

    x: list[float]
    low: list[float]
    high: list[float]


class Marker(Answer):
    """A change that came with a series, beside the place where its line is labelled."""

    x: float
    y: float
    links: list[Link]


class ChartSeries(Answer):
    """One series on the chosen axes."""

    name: str
    describe: str
    """Model, hardware, workload, day."""
    group: str
    hardware: list[str]
    precisions: list[str]
    engine: str
    """Engine and version, joined by " and " where there are several."""
    usd_per_gpu_hour: float | None
    frontier: list[ChartPoint]
    """From low to high x."""
    dominated: list[ChartPoint]
    """Empty unless dominated=true."""
    dominated_count: int
    curve: Line
    """Empty for fewer than two frontier points."""
    band: Band | None
    marker: Marker | None
    flags: list[Flag]
    reason: str | None
    """Why there is nothing to draw, e.g. that no power was recorded."""


class Frontier(Answer):
    """`GET /api/v1/frontier`."""

    x: Axis
    y: Axis
    rule: str
    series: list[ChartSeries]
    """In the order asked for; of a whole group the newest first, at most 50."""
    left_off: int
    """Series of the group beyond those."""
    assumptions: list[str]
    """Prices, power, what a line is: to stand under the chart and in its exports."""


class LimitPoint(Answer):
    """One batch size of the speed-of-light line."""

    x: float
    y: float
    batch: int
    gpus: int
    step_ms: float
    bound: Literal["bandwidth", "compute"]


class Limit(Answer):
    """`GET /api/v1/limit`: throughput if every step took only its bytes or its FLOPs."""

    x: Axis
    y: Axis
    model: str
    hardware: str
    precision: str
    points: list[LimitPoint]
    """The non-dominated ones over all layouts, from low to high x; draw straight lines."""
    assumptions: list[str]
    reason: str | None
    """Why there is no line: shape or specification not known, or no limit on these axes."""


class Loose(Answer):
    """An object of the command line, field by field as it prints it; more fields may come."""

    model_config = ConfigDict(extra="allow")


class FrontierKnot(Loose):
    """A frontier point as `upcurve compare --json` prints it."""

    interactivity: float
    tput_per_gpu: float
    tp: int
    concurrency: int
    repeats: int
    interactivity_interval: Interval | None
    tput_per_gpu_interval: Interval | None
    correlation: float | None


class Reading(Loose):
    """One series at one target."""

    interactivity: float
    tput_per_gpu: float | None
    status: Status
    segment: Segment | None
    interval: Interval | None
    usd_per_million_tokens: float | None
    ratio: float | Literal["inf"] | None
    ratio_interval: Interval | None
    rule_ratios: tuple[float, float] | None
    flags: list[Flag]
    joules_per_token: float | None
    usd_per_million_input: float | None
    usd_per_million_output: float | None


class ComparedSeries(Loose):
    """One series of a comparison."""

    name: str
    frontier: list[FrontierKnot]
    at: list[Reading]
    area: dict[str, Any] | None
    noise_floor: dict[str, Any] | None
    flags: list[Flag]


class Comparison(Loose):
    """Exactly the object that `upcurve compare --json` prints."""

    targets: list[float]
    baseline: str
    series: list[ComparedSeries]


class SeriesDetail(Answer):
    """What a comparison's object does not say of a series."""

    name: str
    describe: str
    price: str | None
    """What its cost assumes, in words."""
    usd_per_gpu_hour: float | None


class Compare(Answer):
    """`GET /api/v1/compare`."""

    comparison: Comparison
    details: list[SeriesDetail]
    warnings: list[str]
    """What sets the series apart beyond the change they measure."""
    notes: list[str]


class BuildValue(Loose):
    """One build of a history."""

    build: str
    first_measured_at: str
    series: list[str]
    value: float | None
    status: str
    rounds: int
    interval: Interval | None
    stray: bool
    changes: list[str]
    differences: list[str]


class ChangePoint(Loose):
    """A step of a history."""

    build: str
    after_build: str
    direction: Literal["regression", "improvement"]
    before: float
    after: float
    ratio: float
    interval: Interval
    p_value: float
    changes: list[str]
    differences: list[str]


class OneHistory(Loose):
    """One history at one place."""

    history: str
    name: str
    engine: str
    model: str
    hardware: str
    precision: str
    isl: int
    osl: int
    at: str
    price: str | None
    state: Literal["regression", "improvement", "no change", "insufficient data"]
    reason: str
    notes: list[str]
    noise: float | None
    builds: list[BuildValue]
    change_points: list[ChangePoint]


class Histories(Loose):
    """Exactly the object that `upcurve history --json` prints."""

    metric: str
    unit: str
    by: Literal["build", "date"]
    min_change: float
    histories: list[OneHistory]


class History(Answer):
    """`GET /api/v1/history`."""

    history: Histories
    left_off: int
    """Histories beyond the first 20."""
    notes: list[str]
