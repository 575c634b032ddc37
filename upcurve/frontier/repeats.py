"""Repeated measurements of one operating point: aggregated, or split into rounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from upcurve.frontier.pareto import frontier
from upcurve.frontier.point import Place, Point


@dataclass(frozen=True, slots=True)
class Repeats:
    """The points of one series, seen as operating points measured once or more."""

    operating_points: list[Point]
    """One point for each operating point: the median of its repeats on each axis."""
    measured: list[list[Point]]
    """The repeats behind each of `operating_points`, in the same order."""
    rounds: dict[int, list[Point]]
    """Repeat index -> points, for the indices under which every operating point was measured.

    Empty unless there are two such rounds.
    """


def split_repeats(points: Sequence[Point]) -> Repeats:
    """Aggregate the points of one series that are equal but for `repeat`.

    Points of equal layout and concurrency are repeats of one another if their repeat indices
    differ. Where one index comes twice they differ in something that a point does not say (such as
    a run of another recipe): each is then an operating point of its own, as the definition of the
    frontier pools them.
    """
    groups: defaultdict[Place, list[Point]] = defaultdict(list)
    for point in points:
        groups[point.place].append(point)
    operating_points: list[Point] = []
    measured: list[list[Point]] = []
    indices: set[int] | None = None
    for group in groups.values():
        found = {point.repeat for point in group}
        if len(found) < len(group):
            operating_points += group
            measured += [[point] for point in group]
            indices = set()
            continue
        operating_points.append(_aggregate(group))
        measured.append(group)
        indices = found if indices is None else indices & found
    rounds: dict[int, list[Point]] = {}
    if indices is not None and len(indices) > 1:
        rounds = {index: [] for index in sorted(indices)}
        for point in points:
            if point.repeat in rounds:
                rounds[point.repeat].append(point)
    return Repeats(operating_points, measured, rounds)


def frontier_of_repeats(points: Sequence[Point]) -> list[Point]:
    """Return the frontier of points whose repeats are aggregated first, as `frontier` does."""
    return frontier(split_repeats(points).operating_points)


def _aggregate(group: Sequence[Point]) -> Point:
    if len(group) == 1:
        return group[0]
    return replace(
        group[0],
        interactivity=median(point.interactivity for point in group),
        tput_per_gpu=median(point.tput_per_gpu for point in group),
        repeat=0,
    )
