"""Series compared at equal interactivity: throughput, ratio, cost, statuses, spread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from upcurve.errors import InputError
from upcurve.frontier.area import AreaRatio, area_ratio
from upcurve.frontier.bootstrap import MINIMUM_REPEATS, Draws, draw_series, interval
from upcurve.frontier.cost import usd_per_million_tokens
from upcurve.frontier.flags import (
    Flag,
    bracket,
    end_segment,
    point_flags,
    reach_uncertain,
    regime_extension,
)
from upcurve.frontier.interpolation import DEFAULT_RULE, RULES, Curve, Reading, Segment, Status
from upcurve.frontier.pareto import frontier
from upcurve.frontier.point import Point
from upcurve.frontier.repeats import Repeats, split_repeats
from upcurve.frontier.text import ratio_text
from upcurve.frontier.uncertainty import (
    Interval,
    NoiseFloor,
    RatioSpread,
    TargetDraws,
    inside_noise,
    ratio_spread,
)

MOST_TARGETS = 6
"""How many targets `round_targets` chooses at most: a table that fits one screen."""
MOST_EVERY = 1000


@dataclass(frozen=True, slots=True)
class TargetReading:
    """One series at one target interactivity."""

    interactivity: float
    """The target, in tok/s/user."""
    tput_per_gpu: float | None
    """Tokens per second per GPU; None where the status is unreachable or below_range."""
    status: Status
    segment: Segment | None
    interval: Interval | None
    """95 % interval of `tput_per_gpu`, where three repeats or more surely reach the target."""
    usd_per_million_tokens: float | None
    ratio: float | None
    """Over the baseline; infinite where only the baseline is unreachable, None where undefined."""
    ratio_interval: Interval | None
    """95 % interval of `ratio`, where both series have repeats that surely reach."""
    round_ratios: RatioSpread | None
    """The ratio within each of two or more rounds that both series share, if all of them reach."""
    rule_ratios: tuple[float, float] | None
    """Lowest and highest ratio over all interpolation rules, where it rests on an end segment."""
    flags: tuple[Flag, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of this reading, without the spreads of the ratio."""
        infinite = self.ratio is not None and math.isinf(self.ratio)
        return {
            "interactivity": self.interactivity,
            "tput_per_gpu": self.tput_per_gpu,
            "status": self.status,
            "segment": self.segment,
            "interval": list(self.interval) if self.interval else None,
            "usd_per_million_tokens": self.usd_per_million_tokens,
            "ratio": "inf" if infinite else self.ratio,
            "ratio_interval": list(self.ratio_interval) if self.ratio_interval else None,
            "rule_ratios": list(self.rule_ratios) if self.rule_ratios else None,
            "flags": [flag.to_dict() for flag in self.flags],
        }


@dataclass(frozen=True, slots=True)
class PointIntervals:
    """How far one operating point may be off, on both axes, from one set of draws."""

    repeats: int
    interactivity: Interval | None
    tput_per_gpu: Interval | None
    correlation: float | None
    """Of log interactivity and log throughput over the draws."""

    def to_dict(self) -> dict[str, Any]:
        """Return what this adds to the JSON object of a point."""
        return {
            "repeats": self.repeats,
            "interactivity_interval": list(self.interactivity) if self.interactivity else None,
            "tput_per_gpu_interval": list(self.tput_per_gpu) if self.tput_per_gpu else None,
            "correlation": self.correlation,
        }


@dataclass(frozen=True, slots=True, eq=False)
class SeriesComparison:
    """One series: its frontier, the curve through it, and its reading at every target."""

    name: str
    usd_per_gpu_hour: float | None
    frontier: tuple[Point, ...]
    """By ascending interactivity; each the median of its repeats."""
    intervals: tuple[PointIntervals, ...]
    """Of each point of `frontier`."""
    curve: Curve
    at: tuple[TargetReading, ...]
    rounds: int
    """Full rounds of repeats; 0 where the series was measured once."""
    area: AreaRatio | None
    """Over the baseline; None for the baseline, and where the two share no band."""
    noise: NoiseFloor | None
    """From earlier runs, where the caller knows some."""
    flags: tuple[Flag, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of this series."""
        return {
            "name": self.name,
            "frontier": [
                {
                    "interactivity": point.interactivity,
                    "tput_per_gpu": point.tput_per_gpu,
                    "tp": point.tp,
                    "concurrency": point.concurrency,
                    **intervals.to_dict(),
                }
                for point, intervals in zip(self.frontier, self.intervals, strict=True)
            ],
            "at": [reading.to_dict() for reading in self.at],
            "area": self.area and self.area.to_dict(),
            "noise_floor": self.noise and asdict(self.noise),
            "flags": [flag.to_dict() for flag in self.flags],
        }


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Several series at the same targets, with ratios over one of them."""

    targets: tuple[float, ...]
    baseline: str
    rule: str
    series: tuple[SeriesComparison, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `upcurve compare --json` prints."""
        return {
            "targets": list(self.targets),
            "baseline": self.baseline,
            "series": [series.to_dict() for series in self.series],
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """A series fitted under every rule, and each of its rounds under the chosen one."""

    name: str
    repeats: Repeats
    frontier: tuple[Point, ...]
    measured: tuple[list[Point], ...]
    """The repeats of each point of `frontier`."""
    curves: dict[str, Curve]
    rounds: dict[int, Curve]


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One series of a comparison under way."""

    fit: _Fit
    draws: Draws | None
    read: TargetDraws | None
    noise: NoiseFloor | None
    price: float | None

    @property
    def fully_repeated(self) -> bool:
        return all(len(group) >= MINIMUM_REPEATS for group in self.fit.measured)


def compare(
    series: Mapping[str, Sequence[Point]],
    *,
    baseline: str,
    targets: Sequence[float],
    usd_per_gpu_hour: Mapping[str, float | None],
    rule: str = DEFAULT_RULE,
    noise: Mapping[str, NoiseFloor | None] | None = None,
    flags: Mapping[str, Sequence[Flag]] | None = None,
) -> Comparison:
    """Compare series at equal interactivity.

    All intervals come from one set of draws (`upcurve.frontier.bootstrap`).

    Args:
        series: points of each series by name, in any order; repeats are aggregated by the median
            of each axis before the frontier is taken.
        baseline: the series that ratios are over.
        targets: interactivities in tok/s/user, kept in the order given.
        usd_per_gpu_hour: price of each series' hardware; None or absent leaves its cost None.
        rule: a name of `upcurve.frontier.interpolation.RULES`.
        noise: run-to-run noise of a series from earlier runs.
        flags: what else is to be known about a series.

    Raises:
        InputError: a series without points or with values that are not positive and finite, a
            baseline that is not among the series, no or unusable targets, an unknown rule.
    """
    if baseline not in series:
        raise InputError(
            "baseline", f"{baseline!r} is not compared", f"give one of {', '.join(series)}"
        )
    if not targets or not all(0 < target < math.inf for target in targets):
        raise InputError("targets", "not all positive and finite", "give e.g. 20,30,40")
    if rule not in RULES:
        raise InputError("rule", f"{rule!r} is unknown", f"give one of {', '.join(RULES)}")
    fits = {name: _fit(name, points, rule) for name, points in series.items()}
    drawn = draw_series({name: fit.repeats.measured for name, fit in fits.items()}, baseline)
    sides = {
        name: _Side(
            fit,
            drawn.get(name),
            TargetDraws.read(drawn[name], targets, rule) if name in drawn else None,
            (noise or {}).get(name),
            usd_per_gpu_hour.get(name),
        )
        for name, fit in fits.items()
    }
    return Comparison(
        targets=tuple(targets),
        baseline=baseline,
        rule=rule,
        series=tuple(
            SeriesComparison(
                name=name,
                usd_per_gpu_hour=side.price,
                frontier=side.fit.frontier,
                intervals=_point_intervals(side),
                curve=side.fit.curves[rule],
                at=tuple(
                    _read(side, sides[baseline], place, target, rule)
                    for place, target in enumerate(targets)
                ),
                rounds=len(side.fit.rounds),
                area=_area(side, sides[baseline], rule),
                noise=side.noise,
                flags=tuple((flags or {}).get(name, ())),
            )
            for name, side in sides.items()
        ),
    )


def targets_every(series: Mapping[str, Sequence[Point]], step: float) -> list[float]:
    """Return the multiples of a step that at least one frontier reaches, ascending.

    Raises:
        InputError: there is none, there are more than a thousand, or as `compare` does.
    """
    spans = _spans(series)
    low, high = min(start for start, _ in spans.values()), max(end for _, end in spans.values())
    first, last = math.ceil(low / step), math.floor(high / step)
    if not 0 < last - first + 1 <= MOST_EVERY:
        raise InputError(
            "every",
            f"{max(0, last - first + 1)} multiples of {step:g} lie on {low:.4g} to {high:.4g}",
            "give a step that fits the frontiers",
        )
    return [round(index * step, 9) for index in range(first, last + 1)]


def round_targets(series: Mapping[str, Sequence[Point]]) -> list[float]:
    """Return round interactivities that every frontier reaches: at most six, ascending.

    Raises:
        InputError: the frontiers have no interactivity in common, or as `compare` does.
    """
    ranges = _spans(series)
    low = max(start for start, _ in ranges.values())
    high = min(end for _, end in ranges.values())
    if low > high:
        spans = ", ".join(f"{name} {a:.4g} to {b:.4g}" for name, (a, b) in ranges.items())
        raise InputError("at", f"the frontiers do not overlap ({spans})", "give targets with --at")
    if low == high:
        return [low]
    exponent = math.floor(math.log10(high - low)) - 1
    for step in (mantissa * 10.0**e for e in (exponent, exponent + 1) for mantissa in (1, 2, 5)):
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first < MOST_TARGETS:
            break
    # Rounding drops the noise of step multiples; the bounds drop what rounding moved outside.
    rounded = [round(index * step, max(0, 1 - exponent)) for index in range(first, last + 1)]
    return [target for target in rounded if low <= target <= high] or [low]


def _spans(series: Mapping[str, Sequence[Point]]) -> dict[str, tuple[float, float]]:
    """Return the lowest and the highest interactivity of each frontier."""
    knots = {name: _fit(name, points, DEFAULT_RULE).frontier for name, points in series.items()}
    return {name: (own[0].interactivity, own[-1].interactivity) for name, own in knots.items()}


def _fit(name: str, points: Sequence[Point], rule: str) -> _Fit:
    if not points:
        raise InputError(f"series {name}", "it has no points", "measure or import some")
    for point in points:
        if not (0 < point.interactivity < math.inf and 0 < point.tput_per_gpu < math.inf):
            raise InputError(
                f"series {name}",
                f"interactivity {point.interactivity} and tput_per_gpu {point.tput_per_gpu} at "
                f"concurrency {point.concurrency} are not both positive and finite",
                "correct or remove that row",
            )
    repeats = split_repeats(points)
    knots = frontier(repeats.operating_points)
    measured = {
        id(point): group
        for point, group in zip(repeats.operating_points, repeats.measured, strict=True)
    }
    return _Fit(
        name=name,
        repeats=repeats,
        frontier=tuple(knots),
        measured=tuple(measured[id(point)] for point in knots),
        curves={each: _curve(knots, each) for each in RULES},
        rounds={index: _curve(frontier(own), rule) for index, own in repeats.rounds.items()},
    )


def _curve(knots: Sequence[Point], rule: str) -> Curve:
    return Curve.through(
        [point.interactivity for point in knots], [point.tput_per_gpu for point in knots], rule
    )


def _read(side: _Side, base: _Side, place: int, target: float, rule: str) -> TargetReading:
    fit = side.fit
    own, other = fit.curves[rule].at(target), base.fit.curves[rule].at(target)
    ratio = _ratio(own, other)
    has_ratio = ratio is not None and math.isfinite(ratio) and side is not base
    own_interval, ratio_interval = None, None
    if own.value is not None and side.read and _is_repeated(side, target, rule):
        own_interval = side.read.interval(place, own.value)
        if has_ratio and ratio and base.read and _is_repeated(base, target, rule):
            ratio_interval = side.read.ratio_interval(base.read, place, ratio)
    reading = TargetReading(
        interactivity=target,
        tput_per_gpu=own.value,
        status=own.status,
        segment=own.segment,
        interval=own_interval,
        usd_per_million_tokens=(
            usd_per_million_tokens(side.price, own.value)
            if side.price is not None and own.value is not None
            else None
        ),
        ratio=ratio,
        ratio_interval=ratio_interval,
        round_ratios=_round_ratios(fit, base.fit, target) if has_ratio else None,
        rule_ratios=(
            _rule_ratios(fit, base.fit, target)
            if has_ratio and "end" in (own.segment, other.segment)
            else None
        ),
        flags=(),
    )
    return replace(reading, flags=tuple(_flags(reading, side, base, rule)))


def _is_repeated(side: _Side, target: float, rule: str) -> bool:
    """Whether all knots that shape the curve at a target have repeats enough."""
    left = int(np.searchsorted(side.fit.curves[rule].x, target, side="right")) - 1
    shaping = side.fit.measured[max(0, left - 1) : left + 3]
    return all(len(group) >= MINIMUM_REPEATS for group in shaping)


def _flags(reading: TargetReading, side: _Side, base: _Side, rule: str) -> Iterator[Flag]:
    target, curve = reading.interactivity, side.fit.curves[rule]
    if reading.tput_per_gpu is None:
        return
    if side is not base:
        other = base.fit.curves[rule]
        yield from regime_extension(base.fit.name, other, other.at(target), target)
    if reading.rule_ratios:
        low, high = map(ratio_text, reading.rule_ratios)
        yield end_segment((low, high))
    yield from point_flags(side.fit.measured[bracket(curve, target)])
    repeated = _is_repeated(side, target, rule)
    if repeated and reading.interval is None:
        yield reach_uncertain(target)
    held = reading.ratio_interval
    if held and held[0] <= 1 <= held[1]:
        yield Flag("inside_noise", "the interval of the ratio holds 1: no difference is shown")
    elif (
        side is not base
        and reading.ratio
        and not held
        and math.isfinite(reading.ratio)
        and inside_noise(reading.ratio, side.noise, base.noise)
    ):
        yield Flag("inside_noise", "two runs of the same thing differ as much: inside the noise")


def _point_intervals(side: _Side) -> tuple[PointIntervals, ...]:
    # A frontier point that was measured once is the very object that was measured.
    places = {id(point): index for index, point in enumerate(side.fit.repeats.operating_points)}
    found = []
    for point, group in zip(side.fit.frontier, side.fit.measured, strict=True):
        if side.draws is None or len(group) < MINIMUM_REPEATS:
            found.append(PointIntervals(len(group), None, None, None))
            continue
        place = places[id(point)]
        x, y = side.draws.x[:, place], side.draws.y[:, place]
        varies = bool(np.ptp(x) > 0 and np.ptp(y) > 0)
        found.append(
            PointIntervals(
                len(group),
                interval(x, point.interactivity),
                interval(y, point.tput_per_gpu),
                float(np.corrcoef(np.log(x), np.log(y))[0, 1]) if varies else None,
            )
        )
    return tuple(found)


def _area(side: _Side, base: _Side, rule: str) -> AreaRatio | None:
    if side is base:
        return None
    draws = None
    if side.draws and base.draws and side.fully_repeated and base.fully_repeated:
        draws = side.draws, base.draws
    return area_ratio(side.fit.frontier, base.fit.frontier, rule, draws)


def _ratio(own: Reading, base: Reading) -> float | None:
    if own.value is None:
        return None
    if base.value is None:
        return math.inf if base.status == "unreachable" else None
    return own.value / base.value


def _values(curves: Mapping[int, Curve], rounds: Iterable[int], x: float) -> list[float] | None:
    """Return the value at x in each of `rounds`, or None where one does not reach."""
    values = [curves[index].at(x).value for index in rounds]
    found = [value for value in values if value is not None]
    return found if len(found) == len(values) else None


def _round_ratios(fit: _Fit, base: _Fit, target: float) -> RatioSpread | None:
    shared = [index for index in fit.rounds if index in base.rounds]
    own, other = _values(fit.rounds, shared, target), _values(base.rounds, shared, target)
    return ratio_spread(own, other) if own and other and len(shared) > 1 else None


def _rule_ratios(fit: _Fit, base: _Fit, target: float) -> tuple[float, float] | None:
    ratios = [_ratio(fit.curves[name].at(target), base.curves[name].at(target)) for name in RULES]
    found = [ratio for ratio in ratios if ratio is not None]
    return min(found), max(found)
