"""A series made ready to be read: its repeats, its frontier, the curves through it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from upcurve.errors import InputError
from upcurve.frontier.interpolation import RULES, Curve
from upcurve.frontier.pareto import frontier
from upcurve.frontier.point import Point
from upcurve.frontier.repeats import Repeats, split_repeats


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A series fitted under every rule, and each of its rounds under the chosen one."""

    name: str
    repeats: Repeats
    frontier: tuple[Point, ...]
    measured: tuple[list[Point], ...]
    """The repeats of each point of `frontier`."""
    curves: dict[str, Curve]
    rounds: dict[int, Curve]


def fit_series(name: str, points: Sequence[Point], rule: str) -> Fit:
    """Fit the points of one series, in any order.

    Raises:
        InputError: there are none, or their values are not positive and finite.
    """
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
    return Fit(
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
