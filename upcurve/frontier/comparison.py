"""Series compared at equal interactivity: throughput, ratio, cost, statuses, spread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upcurve.errors import InputError
from upcurve.frontier.cost import usd_per_million_tokens
from upcurve.frontier.interpolation import DEFAULT_RULE, RULES, Curve, Reading, Segment, Status
from upcurve.frontier.pareto import frontier
from upcurve.frontier.point import Point
from upcurve.frontier.repeats import split_repeats
from upcurve.frontier.uncertainty import RatioSpread, ratio_spread, student_interval

MOST_TARGETS = 6
"""How many targets `round_targets` chooses at most: a table that fits one screen."""


@dataclass(frozen=True, slots=True)
class TargetReading:
    """One series at one target interactivity."""

    interactivity: float
    """The target, in tok/s/user."""
    tput_per_gpu: float | None
    """Tokens per second per GPU; None where the status is unreachable or below_range."""
    status: Status
    segment: Segment | None
    interval: tuple[float, float] | None
    """95 % interval of `tput_per_gpu` over three or more rounds that all reach the target."""
    usd_per_million_tokens: float | None
    ratio: float | None
    """Over the baseline; infinite where only the baseline is unreachable, None where undefined."""
    round_ratios: RatioSpread | None
    """The ratio within each of two or more rounds that both series share, if all of them reach."""
    rule_ratios: tuple[float, float] | None
    """Lowest and highest ratio over all interpolation rules, where it rests on an end segment."""

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
        }


@dataclass(frozen=True, slots=True, eq=False)
class SeriesComparison:
    """One series: its frontier, the curve through it, and its reading at every target."""

    name: str
    usd_per_gpu_hour: float | None
    frontier: tuple[Point, ...]
    """By ascending interactivity; each the median of its repeats."""
    curve: Curve
    at: tuple[TargetReading, ...]
    rounds: int
    """Full rounds of repeats; 0 where the series was measured once."""

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
                }
                for point in self.frontier
            ],
            "at": [reading.to_dict() for reading in self.at],
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

    frontier: tuple[Point, ...]
    curves: dict[str, Curve]
    rounds: dict[int, Curve]


def compare(
    series: Mapping[str, Sequence[Point]],
    *,
    baseline: str,
    targets: Sequence[float],
    usd_per_gpu_hour: Mapping[str, float | None],
    rule: str = DEFAULT_RULE,
) -> Comparison:
    """Compare series at equal interactivity.

    Args:
        series: points of each series by name, in any order; repeats are aggregated by the median
            of each axis before the frontier is taken.
        baseline: the series that ratios are over.
        targets: interactivities in tok/s/user, kept in the order given.
        usd_per_gpu_hour: price of each series' hardware; None or absent leaves its cost None.
        rule: a name of `upcurve.frontier.interpolation.RULES`.

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
    return Comparison(
        targets=tuple(targets),
        baseline=baseline,
        rule=rule,
        series=tuple(
            SeriesComparison(
                name=name,
                usd_per_gpu_hour=usd_per_gpu_hour.get(name),
                frontier=fit.frontier,
                curve=fit.curves[rule],
                at=tuple(
                    _read(fit, fits[baseline], target, rule, usd_per_gpu_hour.get(name))
                    for target in targets
                ),
                rounds=len(fit.rounds),
            )
            for name, fit in fits.items()
        ),
    )


def round_targets(series: Mapping[str, Sequence[Point]]) -> list[float]:
    """Return round interactivities that every frontier reaches: at most six, ascending.

    Raises:
        InputError: the frontiers have no interactivity in common, or as `compare` does.
    """
    ranges = {}
    for name, points in series.items():
        knots = _fit(name, points, DEFAULT_RULE).frontier
        ranges[name] = knots[0].interactivity, knots[-1].interactivity
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
    return _Fit(
        frontier=tuple(knots),
        curves={each: _curve(knots, each) for each in RULES},
        rounds={index: _curve(frontier(own), rule) for index, own in repeats.rounds.items()},
    )


def _curve(knots: Sequence[Point], rule: str) -> Curve:
    return Curve.through(
        [point.interactivity for point in knots], [point.tput_per_gpu for point in knots], rule
    )


def _read(fit: _Fit, base: _Fit, target: float, rule: str, price: float | None) -> TargetReading:
    own, other = fit.curves[rule].at(target), base.curves[rule].at(target)
    by_round = _values(fit.rounds, fit.rounds, target)
    ratio = _ratio(own, other)
    has_ratio = ratio is not None and math.isfinite(ratio) and fit is not base
    return TargetReading(
        interactivity=target,
        tput_per_gpu=own.value,
        status=own.status,
        segment=own.segment,
        interval=student_interval(by_round) if own.value is not None and by_round else None,
        usd_per_million_tokens=(
            usd_per_million_tokens(price, own.value)
            if price is not None and own.value is not None
            else None
        ),
        ratio=ratio,
        round_ratios=_round_ratios(fit, base, target) if has_ratio else None,
        rule_ratios=(
            _rule_ratios(fit, base, target)
            if has_ratio and "end" in (own.segment, other.segment)
            else None
        ),
    )


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
