"""Configurations measured in rounds -> each one's throughput at a target, round by round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from upcurve.errors import InputError
from upcurve.frontier.attribution import Value
from upcurve.frontier.fit import fit_series
from upcurve.frontier.flags import Flag, bracket, point_flags
from upcurve.frontier.interpolation import DEFAULT_RULE, RULES, Curve
from upcurve.frontier.pareto import frontier
from upcurve.frontier.point import Point
from upcurve.frontier.shapley import Configuration

Rounds = dict[int, list[Point]]
"""Round -> the points of one configuration."""


def whole_rounds(points: Sequence[Point]) -> Rounds:
    """Return the rounds under which every operating point of a configuration was measured.

    A round in which a point is missing has another frontier, so it is left out.
    """
    rounds: defaultdict[int, list[Point]] = defaultdict(list)
    for point in points:
        rounds[point.repeat].append(point)
    places = {point.place for point in points}
    return {
        index: own
        for index, own in sorted(rounds.items())
        if {point.place for point in own} == places
    }


def read_rounds(
    points: Mapping[Configuration, Sequence[Point]],
    target: float,
    *,
    rule: str = DEFAULT_RULE,
    rounds: Sequence[int] | None = None,
) -> dict[int, dict[Configuration, Value]]:
    """Read every configuration in every round at a target, from that round's own frontier.

    Args:
        points: by configuration, repeats being rounds.
        target: interactivity in tok/s/user.
        rule: a name of `upcurve.frontier.interpolation.RULES`.
        rounds: those wanted; by default all in which any configuration was measured.

    Returns:
        Round -> configuration -> value; a configuration without a whole round is absent.

    Raises:
        InputError: the target is not positive, or the rule is unknown.
    """
    if not 0 < target < float("inf"):
        raise InputError("at", f"{target} is no interactivity", "give e.g. 20,30,40")
    if rule not in RULES:
        raise InputError("rule", f"{rule!r} is unknown", f"give one of {', '.join(RULES)}")
    whole = {configuration: whole_rounds(own) for configuration, own in points.items()}
    found = sorted({index for own in whole.values() for index in own})
    wanted = found if rounds is None else rounds
    return {
        index: {on: _read(own[index], target, rule) for on, own in whole.items() if index in own}
        for index in wanted
    }


def common_range(
    points: Mapping[Configuration, Sequence[Point]],
) -> tuple[float, float] | None:
    """Return the interactivities that every frontier of every whole round reaches, or None."""
    spans = []
    for own in points.values():
        for measured in whole_rounds(own).values():
            knots = frontier(measured)
            spans.append((knots[0].interactivity, knots[-1].interactivity))
    if not spans:
        return None
    low, high = max(start for start, _ in spans), min(end for _, end in spans)
    return (low, high) if low <= high else None


def doubts(
    points: Mapping[Configuration, Sequence[Point]], target: float, rule: str = DEFAULT_RULE
) -> dict[Configuration, list[Flag]]:
    """Return what is doubtful about the points that each configuration's value rests on.

    Those are the neighbours of the target on the frontier of all rounds together; a configuration
    that does not reach the target is absent.
    """
    found = {}
    for configuration, own in points.items():
        if own:
            fit = fit_series("configuration", own, rule)
            curve = fit.curves[rule]
            if curve.at(target).value is not None:
                found[configuration] = list(point_flags(fit.measured[bracket(curve, target)]))
    return found


def _read(points: Sequence[Point], target: float, rule: str) -> Value:
    knots = frontier(points)
    x = [point.interactivity for point in knots]
    reading = Curve.through(x, [point.tput_per_gpu for point in knots], rule).at(target)
    if reading.value is not None:
        return Value(reading.value, end=reading.segment == "end")
    if reading.status == "unreachable":
        return Value(None, f"its frontier ends at {x[-1]:.4g} tok/s/user")
    return Value(None, f"its frontier begins at {x[0]:.4g} tok/s/user")
