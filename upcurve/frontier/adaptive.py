"""Which concurrency to measure next, so that few runs resolve a frontier at given targets."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from upcurve.frontier.goal import Goal, Target
from upcurve.frontier.interpolation import DEFAULT_RULE, RULES, Curve
from upcurve.frontier.pareto import frontier
from upcurve.frontier.point import Point
from upcurve.frontier.repeats import split_repeats
from upcurve.frontier.step_time import bracket, crossing, line, nearest, outward
from upcurve.frontier.uncertainty import student_interval

INFLUENCE = 0.1
"""A point is repeated where 1 % of error in it moves the value at the target by 0.1 % or more."""

CLOSEST = 1.05
"""Ratio of neighbouring concurrencies below which noise hides what lies between them."""

Status = Literal["open", "resolved", "finest", "unreachable", "below_range", "blocked"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the points measured so far say at one target."""

    target: Target
    status: Status
    """open: a further concurrency would help; resolved: interpolation is at most half of the
    precision; finest: no whole concurrency worth measuring is left between the neighbours;
    unreachable, below_range: as of a curve, with the range's end measured; blocked: points that
    failed stand between."""
    value: float | None = None
    """Of the other axis at the target."""
    interpolation: float | None = None
    """Relative error of interpolation: half the range over all rules, a power law and the
    step-time model."""
    noise: float | None = None
    """Half the 95 % interval over rounds, relative; None for fewer than three whole rounds."""
    best: Point | None = None
    """Where the target is outside the curve: the measured point nearest to it."""
    next: int | None = None
    """The concurrency that would help most, while the status is open."""
    repeat: tuple[int, ...] = ()
    """The concurrencies that the value rests on, by falling influence."""

    @property
    def error(self) -> float | None:
        """Interpolation and noise together; None where either is unknown."""
        if self.interpolation is None or self.noise is None:
            return None
        return self.interpolation + self.noise


def estimate(
    points: Sequence[Point], target: Target, goal: Goal, failed: Collection[int] = ()
) -> Estimate:
    """Return what points of one layout say at a target.

    Step time is taken to be linear in the batch between neighbours: 1 / interactivity, and
    concurrency / throughput, are a + b x concurrency.

    Args:
        points: measured so far, of one series, tp and gpus; no repeat index twice.
        target: where the curve is to be read.
        goal: precision and bounds.
        failed: concurrencies that gave nothing and are not to be tried again.
    """
    by_concurrency = {each.concurrency: each for each in split_repeats(points).operating_points}
    low, high = bracket(by_concurrency, target)
    if low is not None and high is not None:
        return _between(points, by_concurrency, low, high, target, goal, failed)
    if not by_concurrency:
        start = round(math.sqrt(goal.highest))
        first = nearest(start, range(1, goal.highest + 1), failed)
        return Estimate(target, "open" if first else "blocked", next=first)
    if high is None:
        assert low is not None
        guess = outward(by_concurrency, target, up=True)
        found = nearest(guess, range(low + 1, goal.highest + 1), failed)
        ended = low >= goal.highest
        outside: Status = "below_range" if target.axis == "interactivity" else "unreachable"
        best = by_concurrency[low]
    else:
        guess = outward(by_concurrency, target, up=False)
        found = nearest(guess, range(1, high), failed)
        ended = high == 1
        outside = "unreachable" if target.axis == "interactivity" else "below_range"
        best = by_concurrency[high]
    if found is not None:
        return Estimate(target, "open", best=best, next=found)
    return Estimate(target, outside if ended else "blocked", best=best)


def choose(
    points: Sequence[Point], goal: Goal, index: int = 0, failed: Sequence[int] = ()
) -> int | None:
    """Return the concurrency to measure next in a round, None where the round is at its end.

    A round after the first repeats what the values rest on, most influential first, and adds a
    concurrency only where repeats showed that one is missing. Of several targets the least known
    comes first.

    Args:
        points: measured so far, in all rounds.
        goal: what is to be known.
        index: the round, from 0.
        failed: concurrencies that gave nothing, one entry a try.
    """
    if len(points) + len(failed) >= goal.max_points or index >= goal.rounds:
        return None
    found = [estimate(points, target, goal, failed) for target in goal.targets]
    here = {each.concurrency for each in points if each.repeat == index}
    if index > 0:
        unknown = [each for each in found if each.error is None or each.error > goal.precision]
        for each in sorted(unknown, key=_ignorance, reverse=True):
            for concurrency in each.repeat:
                if concurrency not in here and concurrency not in failed:
                    return concurrency
    wanted = [each for each in found if each.status == "open"]
    return max(wanted, key=_ignorance).next if wanted else None


def is_precise(each: Estimate, goal: Goal) -> bool:
    """Whether interpolation and noise together are known to be within the precision."""
    known = each.status in ("resolved", "finest") and each.error is not None
    return known and (each.error or 0) <= goal.precision


def why(each: Estimate, goal: Goal, spent: int) -> str:
    """Return why no more is measured for a target, in words."""
    if each.status in ("unreachable", "below_range"):
        return _outside(each)
    known = ""
    if each.interpolation is not None:
        known = f": interpolation {_percent(each.interpolation)}, "
        noise = "noise unknown" if each.noise is None else f"noise {_percent(each.noise)}"
        known += noise
    if is_precise(each, goal):
        return f"reached precision {_percent(goal.precision)}{known}"
    if spent >= goal.max_points:
        return f"budget of {goal.max_points} point{'s'[: goal.max_points > 1]} spent{known}"
    if each.status == "blocked":
        return "the concurrencies that are left failed"
    if each.status == "open":
        return f"ended before it was resolved{known}"
    if each.error is None:
        return f"fewer than three whole rounds{known}"
    return f"{goal.rounds} rounds measured{known}"


def _outside(each: Estimate) -> str:
    assert each.best is not None
    at = f"at concurrency {each.best.concurrency}"
    status = each.status.replace("_", " ")
    if each.target.axis == "interactivity":
        kind = "best" if each.status == "unreachable" else "lowest"
        return f"{status}: the {kind} interactivity is {each.best.interactivity:.2f} {at}"
    kind = "highest" if each.status == "unreachable" else "lowest"
    return (
        f"{status}: it takes {each.target.value:.1f} tok/s/GPU, "
        f"and the {kind} throughput is {each.best.tput_per_gpu:.1f} {at}"
    )


def _between(
    points: Sequence[Point],
    by_concurrency: Mapping[int, Point],
    low: int,
    high: int,
    target: Target,
    goal: Goal,
    failed: Collection[int],
) -> Estimate:
    ends = (by_concurrency[low], by_concurrency[high])
    guess = crossing(*ends, target)
    readings = [_read(by_concurrency, ends, target, rule) for rule in RULES]
    value = _read(by_concurrency, ends, target, DEFAULT_RULE)
    if guess is not None:
        fixed, slope = line(*ends, _other(target.axis))
        time = fixed + slope * guess
        readings.append(guess / time if target.axis == "interactivity" else 1 / time)
    readings.append(_power_law(ends, target))
    spread = (max(readings) - min(readings)) / 2 / value
    step = 0.1 * math.log(high / low)
    middle = math.sqrt(low * high) if guess is None else guess
    inner = min(max(middle, low * math.exp(step)), high * math.exp(-step))
    worth = [at for at in range(low + 1, high) if at >= low * CLOSEST and at * CLOSEST <= high]
    following = nearest(inner, worth, failed)
    status: Status = "open"
    # Two points fit any rule: what the rules then agree on is no knowledge of the curve.
    if spread <= goal.precision / 2 and (len(by_concurrency) > 2 or following is None):
        status, following = "resolved", None
    elif following is None:
        status = "blocked" if any(at in failed for at in worth) else "finest"
    repeat = _influential(by_concurrency, ends, target, value)
    noise = _noise(points, by_concurrency, repeat, target, value)
    return Estimate(target, status, value, spread, noise, None, following, repeat)


def _power_law(ends: Sequence[Point], target: Target) -> float:
    """Return the other axis at the target, on a straight line in logarithmic axes."""
    (x, y), (x2, y2) = (
        (math.log(getattr(each, target.axis)), math.log(getattr(each, _other(target.axis))))
        for each in ends
    )
    return math.exp(y + (y2 - y) * (math.log(target.value) - x) / (x2 - x))


def _other(axis: str) -> str:
    return "tput_per_gpu" if axis == "interactivity" else "interactivity"


def _read(
    points: Mapping[int, Point], ends: Sequence[Point], target: Target, rule: str = DEFAULT_RULE
) -> float:
    """Return the other axis at the target, on the frontier or, where noise hides it, the ends."""
    for knots in (frontier(list(points.values())), ends):
        pairs = sorted((getattr(p, target.axis), getattr(p, _other(target.axis))) for p in knots)
        found = (
            Curve.through([x for x, _ in pairs], [y for _, y in pairs], rule).at(target.value).value
        )
        if found is not None and found > 0:
            return found
    # The neighbours lie on both sides of the target, so that the line between them has a value.
    raise AssertionError("the target is outside its neighbours")


def _influential(
    points: Mapping[int, Point], ends: Sequence[Point], target: Target, value: float
) -> tuple[int, ...]:
    """Return the concurrencies whose errors reach the value, by falling influence."""
    influence = {}
    for at, point in points.items():
        moved = [_moved(point, axis) for axis in ("interactivity", "tput_per_gpu")]
        shifts = [_shift({**points, at: each}, target, value) for each in moved]
        influence[at] = math.inf if None in shifts else math.hypot(*(each or 0 for each in shifts))
    at_ends = {each.concurrency for each in ends}
    chosen = [at for at in points if at in at_ends or influence[at] >= INFLUENCE]
    return tuple(sorted(chosen, key=lambda at: (-influence[at], at)))


def _moved(point: Point, axis: str) -> Point:
    if axis == "interactivity":
        return replace(point, interactivity=point.interactivity * 1.01)
    return replace(point, tput_per_gpu=point.tput_per_gpu * 1.01)


def _shift(points: Mapping[int, Point], target: Target, value: float) -> float | None:
    """Return the change at the target, in percent; None where the target left the curve."""
    low, high = bracket(points, target)
    if low is None or high is None:
        return None
    return 100 * (_read(points, (points[low], points[high]), target) / value - 1)


def _noise(
    points: Sequence[Point],
    by_concurrency: Mapping[int, Point],
    needed: Sequence[int],
    target: Target,
    value: float,
) -> float | None:
    """Return half the interval of the value over the rounds that measured all it rests on."""
    values = []
    for index in sorted({each.repeat for each in points}):
        of_round = {each.concurrency: each for each in points if each.repeat == index}
        if not set(needed) <= set(of_round):
            continue
        shift = _shift({**by_concurrency, **of_round}, target, value)
        if shift is not None:
            values.append(value * (1 + shift / 100))
    interval = student_interval(values)
    return None if interval is None else (interval[1] - interval[0]) / 2 / value


def _ignorance(each: Estimate) -> float:
    if each.interpolation is None:
        return math.inf
    return each.interpolation + (each.noise or 0)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
