"""A metric of each build: read off its own frontier, or at one operating point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from upcurve.frontier.comparison import SeriesComparison, compare
from upcurve.frontier.cost import joules_per_token, usd_per_million_tokens
from upcurve.frontier.flags import Flag, mixed_fingerprints, point_flags
from upcurve.frontier.point import Place, Point
from upcurve.frontier.uncertainty import student_interval


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


def watts(measurements: Sequence[Measurement]) -> dict[Place, float]:
    """Return the median power per GPU of each operating point that has any recorded, in W."""
    found: dict[Place, list[float]] = {}
    for each in measurements:
        if each.watts_per_gpu is not None:
            found.setdefault(each.point.place, []).append(each.watts_per_gpu)
    return {key: median(values) for key, values in found.items()}


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
    where: Place,
    metric: Metric,
    usd_per_gpu_hour: float | None,
) -> list[Value]:
    """Return the median over repeats at one parallelism and concurrency, for each build."""
    show = _of_measurement(usd_per_gpu_hour)[metric.name]
    values = []
    for build in builds:
        there = [each for each in build if each.point.place == where]
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
