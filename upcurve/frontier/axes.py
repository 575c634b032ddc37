"""A series on axes of one's choice: throughput against interactivity or a latency, with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from upcurve.frontier.bootstrap import (
    MINIMUM_REPEATS,
    Draws,
    draw_series,
    interval,
    intervals,
)
from upcurve.frontier.ensemble import read_frontiers
from upcurve.frontier.interpolation import Curve, Floats
from upcurve.frontier.pareto import frontier
from upcurve.frontier.point import Point
from upcurve.frontier.repeats import split_repeats
from upcurve.frontier.uncertainty import Interval

BAND_DRAWS = 600
"""Of the bootstrap: an end of a 95 % interval is then within some 3 % of its width."""


@dataclass(frozen=True, slots=True)
class AxisPoint:
    """One operating point: medians over its repeats, and where they may as well have been."""

    point: Point
    """x in `interactivity` and throughput in `tput_per_gpu`, whatever x is."""
    measured: tuple[Point, ...]
    """Its repeats."""
    x_interval: Interval | None
    y_interval: Interval | None


@dataclass(frozen=True, slots=True, eq=False)
class AxisFit:
    """A series of points (x, throughput) with its frontier and the curve through it."""

    frontier: tuple[AxisPoint, ...]
    """By ascending x."""
    dominated: tuple[AxisPoint, ...]
    """In the order of their first measurement."""
    _rule: str
    _sign: int
    """-1 where a low x is the better one: the curve then lies over -x."""
    _curve: Curve
    _draws: Draws | None

    @classmethod
    def of(cls, points: Sequence[Point], *, rising: bool, rule: str) -> AxisFit:
        """Fit the points of one series.

        Args:
            points: x in `interactivity`, throughput in `tput_per_gpu`, both positive; not empty.
            rising: whether a high x is the better one.
            rule: a name of `upcurve.frontier.interpolation.RULES`; its slopes are the same for
                a curve and its mirror image.
        """
        sign = 1 if rising else -1
        repeats = split_repeats(points)
        drawn = draw_series({"": repeats.measured}, "", draws=BAND_DRAWS).get("")
        placed = {
            id(point): AxisPoint(point, tuple(group), *_intervals(point, group, drawn, place))
            for place, (point, group) in enumerate(
                zip(repeats.operating_points, repeats.measured, strict=True)
            )
        }
        # A mirrored copy stands for its point: identity leads back.
        mirrored = {id(point): _mirrored(point, sign) for point in repeats.operating_points}
        back = {id(copy): key for key, copy in mirrored.items()}
        knots = frontier(list(mirrored.values()))
        on_frontier = [back[id(copy)] for copy in knots]
        curve = Curve.through(
            [copy.interactivity for copy in knots], [copy.tput_per_gpu for copy in knots], rule
        )
        found = [placed[key] for key in on_frontier]
        return cls(
            frontier=tuple(found if rising else reversed(found)),
            dominated=tuple(each for key, each in placed.items() if key not in set(on_frontier)),
            _rule=rule,
            _sign=sign,
            _curve=curve,
            _draws=drawn,
        )

    def positions(self, count: int) -> Floats:
        """Return x along the curve: evenly spaced ones and every knot, float64 ascending."""
        x = np.sort(self._sign * self._curve.x)
        return np.unique(np.concatenate([np.linspace(x[0], x[-1], count), x]))

    def sample(self, x: Floats) -> Floats:
        """Return the throughput at every x: float64 [N] for [N]; NaN outside the frontier."""
        return self._curve.sample(self._sign * x)

    def band(self, x: Floats) -> list[Interval | None]:
        """Return the 95 % interval of the throughput at every x.

        None where more than 2.5 % of the draws do not reach it, or where a knot beside it has
        too few repeats.
        """
        estimates = self.sample(x)
        if self._draws is None:
            return [None] * len(x)
        at = np.broadcast_to(self._sign * x, (len(self._draws.x), len(x)))
        values = read_frontiers(self._sign * self._draws.x, self._draws.y, at, self._rule)
        low, high = intervals(values)
        return [
            (min(low[place], own), max(high[place], own))
            if np.isfinite((low[place], high[place])).all() and self._repeated(each)
            else None
            for place, (each, own) in enumerate(zip(x, estimates.tolist(), strict=True))
        ]

    def _repeated(self, x: float) -> bool:
        ordered = self.frontier if self._sign > 0 else self.frontier[::-1]
        left = int(np.searchsorted(self._curve.x, self._sign * x, side="right")) - 1
        shaping = ordered[max(0, left - 1) : left + 3]
        return all(len(each.measured) >= MINIMUM_REPEATS for each in shaping)


def _mirrored(point: Point, sign: int) -> Point:
    return replace(point, interactivity=sign * point.interactivity)


def _intervals(
    point: Point, group: Sequence[Point], draws: Draws | None, place: int
) -> tuple[Interval | None, Interval | None]:
    if draws is None or len(group) < MINIMUM_REPEATS:
        return None, None
    return (
        interval(draws.x[:, place], point.interactivity),
        interval(draws.y[:, place], point.tput_per_gpu),
    )
