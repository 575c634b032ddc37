"""Series compared at equal interactivity: throughput, ratio, cost, statuses, spread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from upcurve.errors import InputError
from upcurve.frontier.area import AreaRatio, area_ratio
from upcurve.frontier.bootstrap import MINIMUM_REPEATS, Draws, draw_series
from upcurve.frontier.cost import usd_per_million_tokens
from upcurve.frontier.fit import Fit, fit_series
from upcurve.frontier.flags import (
    Flag,
    bracket,
    end_segment,
    point_flags,
    reach_uncertain,
    regime_extension,
)
from upcurve.frontier.interpolation import DEFAULT_RULE, RULES, Curve, Reading, Segment, Status
from upcurve.frontier.point import Point
from upcurve.frontier.point_intervals import PointIntervals, point_intervals
from upcurve.frontier.text import ratio_text
from upcurve.frontier.uncertainty import (
    Interval,
    NoiseFloor,
    RatioSpread,
    TargetDraws,
    inside_noise,
    ratio_spread,
)


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
    """Over the baseline; None for it, where the two share no band, and where it was not wanted."""
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
class _Side:
    """One series of a comparison under way."""

    fit: Fit
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
    whole: bool = True,
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
        whole: whether area ratios and intervals of frontier points are wanted too: with repeats
            they take most of the time.

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
    fits = {name: fit_series(name, points, rule) for name, points in series.items()}
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
                intervals=point_intervals(side.fit, side.draws if whole else None),
                curve=side.fit.curves[rule],
                at=tuple(
                    _read(side, sides[baseline], place, target, rule)
                    for place, target in enumerate(targets)
                ),
                rounds=len(side.fit.rounds),
                area=_area(side, sides[baseline], rule) if whole else None,
                noise=side.noise,
                flags=tuple((flags or {}).get(name, ())),
            )
            for name, side in sides.items()
        ),
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


def _round_ratios(fit: Fit, base: Fit, target: float) -> RatioSpread | None:
    shared = [index for index in fit.rounds if index in base.rounds]
    own, other = _values(fit.rounds, shared, target), _values(base.rounds, shared, target)
    return ratio_spread(own, other) if own and other and len(shared) > 1 else None


def _rule_ratios(fit: Fit, base: Fit, target: float) -> tuple[float, float] | None:
    ratios = [_ratio(fit.curves[name].at(target), base.curves[name].at(target)) for name in RULES]
    found = [ratio for ratio in ratios if ratio is not None]
    return min(found), max(found)
