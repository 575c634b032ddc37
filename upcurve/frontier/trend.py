"""A metric over the builds of one history, and in one word what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

from upcurve.frontier.changes import (
    FAMILY_ERROR,
    MINIMUM_VALUES,
    SEGMENT_VALUES,
    Steps,
    find_steps,
)
from upcurve.frontier.comparison import SeriesComparison, compare
from upcurve.frontier.cost import joules_per_token, usd_per_million_tokens
from upcurve.frontier.flags import Flag, mixed_fingerprints, point_flags
from upcurve.frontier.point import Point
from upcurve.frontier.uncertainty import student_interval

State = Literal["regression", "improvement", "no change", "insufficient data"]
OperatingPoint = tuple[int, int, int]
"""(tp, gpus, concurrency)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What is followed over builds."""

    name: str
    unit: str
    higher_is_better: bool
    along_curve: bool
    """Whether it can be read at an interactivity; else only at a concurrency."""


METRICS = {
    each.name: each
    for each in (
        Metric("tput", "tok/s/GPU", True, True),
        Metric("interactivity", "tok/s/user", True, False),
        Metric("ttft_ms", "ms", False, False),
        Metric("tpot_ms", "ms", False, False),
        Metric("usd_per_million", "USD per million tokens", False, True),
        Metric("joules_per_token", "J per token", False, True),
    )
}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured point of a build, with what the curve does not need."""

    point: Point
    ttft_ms: float | None
    tpot_ms: float | None
    watts_per_gpu: float | None
    """Mean power of one GPU in the measured span; None where it was not recorded or is invalid."""
    fingerprint: str = ""
    """Hash over what can change speed; the empty string where it is not known."""


@dataclass(frozen=True, slots=True)
class Value:
    """The metric of one build."""

    value: float | None
    status: str
    """Of the reading: measured, interpolated, unreachable, below_range, or not measured."""
    rounds: int
    """Repeats behind the value; 1 where it was measured once, 0 where it was not."""
    interval: tuple[float, float] | None
    """95 % interval, where three repeats or more carry one."""
    flags: tuple[Flag, ...] = ()
    """What is doubtful about the points that the value rests on."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of this value."""
        return {
            "value": self.value,
            "status": self.status,
            "rounds": self.rounds,
            "interval": list(self.interval) if self.interval else None,
            "flags": [flag.to_dict() for flag in self.flags],
        }


def watts(measurements: Sequence[Measurement]) -> dict[OperatingPoint, float]:
    """Return the median power per GPU of each operating point that has any recorded, in W."""
    found: dict[OperatingPoint, list[float]] = {}
    for each in measurements:
        if each.watts_per_gpu is not None:
            found.setdefault(operating_point(each.point), []).append(each.watts_per_gpu)
    return {key: median(values) for key, values in found.items()}


def operating_point(point: Point) -> OperatingPoint:
    """Return what repeats have in common."""
    return point.tp, point.gpus, point.concurrency


def at_interactivity(
    builds: Sequence[Sequence[Measurement]],
    interactivity: float,
    metric: Metric,
    usd_per_gpu_hour: float | None,
) -> list[Value]:
    """Read each build's own frontier at one interactivity, as `at_interactivities` does."""
    return at_interactivities(builds, [interactivity], metric, usd_per_gpu_hour)[0]


def at_interactivities(
    builds: Sequence[Sequence[Measurement]],
    targets: Sequence[float],
    metric: Metric,
    usd_per_gpu_hour: float | None,
    read: Sequence[SeriesComparison] | None = None,
) -> list[list[Value]]:
    """Read each build's own frontier at several interactivities, by the rule of `compare`.

    Args:
        builds: measurements of each, not empty.
        targets: in tok/s/user.
        metric: one that has `along_curve`.
        usd_per_gpu_hour: one price for all builds, so that a cost moves with throughput alone.
        read: what `read_builds` gave for them, where several metrics are followed.

    Returns:
        One value for each build, for each target.
    """
    read = read_builds(builds, targets) if read is None else read
    return [
        [
            _of_reading(series, place, build, metric, usd_per_gpu_hour)
            for build, series in zip(builds, read, strict=True)
        ]
        for place in range(len(targets))
    ]


def read_builds(
    builds: Sequence[Sequence[Measurement]], targets: Sequence[float]
) -> tuple[SeriesComparison, ...]:
    """Read each build's frontier at every target: what all metrics along a curve are made of."""
    points = {str(index): [each.point for each in build] for index, build in enumerate(builds)}
    return compare(points, baseline="0", targets=targets, usd_per_gpu_hour={}, whole=False).series


def _of_reading(
    series: SeriesComparison,
    place: int,
    build: Sequence[Measurement],
    metric: Metric,
    usd_per_gpu_hour: float | None,
) -> Value:
    reading = series.at[place]
    tput, interval, status = reading.tput_per_gpu, reading.interval, str(reading.status)
    value = tput
    if tput is not None and metric.name == "usd_per_million":
        value, interval = _cost(usd_per_gpu_hour, tput, interval)
        status = status if value is not None else "no price"
    elif tput is not None and metric.name == "joules_per_token":
        at = reading.interactivity
        value = joules_per_token(series.frontier, watts(build), at, tput)
        interval = None
        status = status if value is not None else "no power recorded"
    rounds = max(1, series.rounds) if value is not None else 0
    flags = (*_mixed(build), *_own_flags(reading.flags)) if value is not None else ()
    return Value(value, status, rounds, interval, flags)


def at_operating_point(
    builds: Sequence[Sequence[Measurement]],
    where: OperatingPoint,
    metric: Metric,
    usd_per_gpu_hour: float | None,
) -> list[Value]:
    """Return the median over repeats at one parallelism and concurrency, for each build."""
    show = _of_measurement(usd_per_gpu_hour)[metric.name]
    values = []
    for build in builds:
        there = [each for each in build if operating_point(each.point) == where]
        shown = [(each, value) for each in there if (value := show(each)) is not None]
        if not shown:
            values.append(Value(None, "not measured", 0, None))
            continue
        found = [value for _, value in shown]
        flags = *_mixed(there), *point_flags([[each.point for each, _ in shown]])
        values.append(Value(median(found), "measured", len(found), student_interval(found), flags))
    return values


def _mixed(measurements: Sequence[Measurement]) -> Iterator[Flag]:
    """Flag a build whose runs differ in what can change speed."""
    count = len({each.fingerprint for each in measurements})
    if count > 1:
        yield mixed_fingerprints(count)


def _own_flags(flags: Sequence[Flag]) -> Iterator[Flag]:
    """Yield what is said of a reading itself, not of its ratio over another build."""
    of_ratio = ("regime_extension", "end_segment_sensitivity", "inside_noise")
    return (flag for flag in flags if flag.code not in of_ratio)


def _of_measurement(
    usd_per_gpu_hour: float | None,
) -> Mapping[str, Callable[[Measurement], float | None]]:
    return {
        "tput": lambda each: each.point.tput_per_gpu,
        "interactivity": lambda each: each.point.interactivity,
        "ttft_ms": lambda each: each.ttft_ms,
        "tpot_ms": lambda each: each.tpot_ms,
        "usd_per_million": lambda each: _cost(usd_per_gpu_hour, each.point.tput_per_gpu, None)[0],
        "joules_per_token": lambda each: (
            None if each.watts_per_gpu is None else each.watts_per_gpu / each.point.tput_per_gpu
        ),
    }


def _cost(
    price: float | None, tput: float, interval: tuple[float, float] | None
) -> tuple[float | None, tuple[float, float] | None]:
    if price is None:
        return None, None
    cost = usd_per_million_tokens(price, tput)
    if interval is None:
        return cost, None
    low, high = interval
    return cost, (usd_per_million_tokens(price, high), usd_per_million_tokens(price, low))


@dataclass(frozen=True, slots=True)
class Trend:
    """What became of a metric over builds."""

    state: State
    """By the newest change point of at least the smallest change that counts."""
    reason: str
    """Why, in words."""
    steps: Steps | None
    """Positions count builds, those without a value too; None where there are too few values."""
    notes: tuple[str, ...]


def direction(metric: Metric, ratio: float) -> Literal["regression", "improvement"]:
    """Say whether a ratio after / before is to the good."""
    return "improvement" if (ratio > 1) == metric.higher_is_better else "regression"


def judge(values: Sequence[Value], metric: Metric, min_change: float) -> Trend:
    """Find the change points of a history and say what became of the metric.

    The newest level decides: a regression that a later change point followed is past. Where the
    newest `SEGMENT_VALUES` builds do not reach an interactivity that builds before them reached,
    that is a regression without a size.

    Args:
        values: one per build, oldest first.
        metric: what they are.
        min_change: the smallest relative change that counts, e.g. 0.01.
    """
    places = [index for index, each in enumerate(values) if each.value is not None]
    found = [each.value for each in values if each.value is not None]
    steps = find_steps(found)
    lost = len(values) - (places[-1] + 1 if places else 0)
    notes = []
    if places and all(each.status == "unreachable" for each in values[len(values) - lost :]):
        if lost >= SEGMENT_VALUES:
            reason = f"the newest {lost} builds do not reach what builds before them reached"
            return Trend("regression", reason, _moved(steps, places), tuple(_doubts(values)))
        if lost:
            notes.append("the newest build does not reach what builds before it reached")
    notes += _doubts(values)
    if steps is None:
        builds = "1 build" if len(found) == 1 else f"{len(found)} builds"
        reason = f"{builds} with a value; change points need {MINIMUM_VALUES}"
        return Trend("insufficient data", reason, None, tuple(notes))
    alone = steps.newest_alone
    if alone is not None and alone.p_value < FAMILY_ERROR:
        notes.append(
            f"the newest build alone lies {alone.ratio - 1:+.1%} from the level before it, more "
            f"than its noise explains (p = {alone.p_value:.1g}): measure it again"
        )
    moved = _moved(steps, places)
    assert moved is not None
    if not moved.change_points:
        reason = f"one level, with a noise of {steps.noise:.1%} from build to build"
        return Trend("no change", reason, moved, tuple(notes))
    newest = moved.change_points[-1]
    size = newest.ratio - 1
    low, high = (each - 1 for each in newest.interval)
    reason = f"{size:+.1%} (95 % interval {low:+.1%} to {high:+.1%}, p = {newest.p_value:.1g})"
    if abs(size) < min_change:
        return Trend("no change", f"{reason}, below {min_change:.1%}", moved, tuple(notes))
    return Trend(direction(metric, newest.ratio), reason, moved, tuple(notes))


def _doubts(values: Sequence[Value]) -> list[str]:
    """Return each kind of flag in words, with how many builds have it; the newest one's text."""
    newest: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for each in values:
        for flag in each.flags:
            newest[flag.code] = flag.text
        counts.update({flag.code for flag in each.flags})
    of = sum(each.value is not None for each in values)
    return [
        f"{code.replace('_', ' ')} in {counts[code]} of {of} builds, in the newest of them: {text}"
        for code, text in newest.items()
    ]


def _moved(steps: Steps | None, places: Sequence[int]) -> Steps | None:
    """Return steps whose positions count the builds without a value too."""
    if steps is None:
        return None
    changes = tuple(replace(each, index=places[each.index]) for each in steps.change_points)
    strays = tuple(places[each] for each in steps.strays)
    return replace(steps, change_points=changes, strays=strays)
