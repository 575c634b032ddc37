"""Series compared at equal interactivity: throughput, ratio, cost, statuses, spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from upcurve.errors import InputError
from upcurve.frontier.area import AreaRatio, area_ratio
from upcurve.frontier.bootstrap import draw_series
from upcurve.frontier.fit import fit_series
from upcurve.frontier.flags import Flag
from upcurve.frontier.interpolation import DEFAULT_RULE, RULES, Curve
from upcurve.frontier.point import Point
from upcurve.frontier.point_intervals import PointIntervals, point_intervals
from upcurve.frontier.target_reading import Side, TargetReading, read_target
from upcurve.frontier.uncertainty import NoiseFloor, TargetDraws

__all__ = ["Comparison", "SeriesComparison", "TargetReading", "compare"]


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
                    "ep": point.ep,
                    "dp": point.dp,
                    "gpus": point.gpus,
                    "prefill_gpus": point.prefill_gpus,
                    "decode_gpus": point.decode_gpus,
                    "concurrency": point.concurrency,
                    **intervals.to_dict(),
                }
                for point, intervals in zip(self.frontier, self.intervals, strict=True)
            ],
            "at": [reading.to_dict() for reading in self.at],
            "rounds": self.rounds,
            "usd_per_gpu_hour": self.usd_per_gpu_hour,
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
            "series": [series.to_dict() | {"rule": self.rule} for series in self.series],
        }


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
        name: Side(
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
                    read_target(side, sides[baseline], place, target, rule)
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


def _area(side: Side, base: Side, rule: str) -> AreaRatio | None:
    if side is base:
        return None
    draws = None
    if side.draws and base.draws and side.fully_repeated and base.fully_repeated:
        draws = side.draws, base.draws
    return area_ratio(side.fit.frontier, base.fit.frontier, rule, draws)
