"""The step-time model: the time of a step is linear in the batch, a + b x concurrency."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from upcurve.frontier.goal import Target
from upcurve.frontier.point import Point

OVERSHOOT = 1.1
"""How far beyond the model's guess a bracket is closed, so that its far side is likely reached."""


def bracket(points: Mapping[int, Point], target: Target) -> tuple[int | None, int | None]:
    """Return the neighbours of the target: the highest before it, the lowest beyond it."""
    high = min((at for at, each in points.items() if _beyond(each, target)), default=None)
    # Noise may put a point before the target above one beyond it: the lower one decides.
    low = max((at for at in points if high is None or at < high), default=None)
    return low, high


def _beyond(point: Point, target: Target) -> bool:
    if target.axis == "interactivity":
        return point.interactivity < target.value
    return point.tput_per_gpu > target.value


def _time(point: Point, axis: str) -> float:
    """Return what is linear in concurrency: the time of a token, or of a request over its size."""
    if axis == "interactivity":
        return 1 / point.interactivity
    return point.concurrency / point.tput_per_gpu


def line(one: Point, other: Point, axis: str) -> tuple[float, float]:
    """Return a and b of the time a + b x concurrency through two points."""
    slope = (_time(other, axis) - _time(one, axis)) / (other.concurrency - one.concurrency)
    return _time(one, axis) - slope * one.concurrency, slope


def crossing(one: Point, other: Point, target: Target) -> float | None:
    """Return the concurrency at which the line through two points meets the target."""
    fixed, slope = line(one, other, target.axis)
    if target.axis == "interactivity":
        above, below = 1 / target.value - fixed, slope
    else:
        above, below = fixed * target.value, 1 - slope * target.value
    return above / below if above > 0 and below > 0 else None


def outward(points: Mapping[int, Point], target: Target, *, up: bool) -> float:
    """Return a concurrency that should lie beyond the target, from points all on one side."""
    outermost = sorted(points, reverse=up)[:2]
    edge = points[outermost[0]]
    if len(outermost) == 2:
        guess = crossing(points[outermost[1]], edge, target)
    else:
        # One point knows no slope: speed falls about with the root of the batch, as published.
        speed = edge.interactivity if target.axis == "interactivity" else edge.tput_per_gpu
        power = -2 if target.axis == "interactivity" else 2
        guess = edge.concurrency * (target.value / speed) ** power
    if up:
        guess = 4 * edge.concurrency if guess is None else guess * OVERSHOOT
        return min(max(guess, edge.concurrency * OVERSHOOT), edge.concurrency * 8)
    guess = edge.concurrency / 4 if guess is None else guess / OVERSHOOT
    return max(min(guess, edge.concurrency / OVERSHOOT), edge.concurrency / 8)


def nearest(guess: float, candidates: Sequence[int], failed: Collection[int]) -> int | None:
    """Return the candidate nearest to a guess by ratio, but for those that failed."""
    left = [each for each in candidates if each not in failed]
    return min(left, key=lambda each: abs(math.log(each / guess)), default=None)
