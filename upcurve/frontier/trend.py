"""What became of a metric over the builds of one history, in one word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from upcurve.frontier.build_values import Metric, Value
from upcurve.frontier.changes import (
    FAMILY_ERROR,
    MINIMUM_VALUES,
    SEGMENT_VALUES,
    Steps,
    find_steps,
)

State = Literal["regression", "improvement", "no change", "insufficient data"]


@dataclass(frozen=True, slots=True)
class Trend:
    """What became of a metric over builds."""

    state: State
    """By the newest change point of at least the smallest change that counts."""
    reason: str
    """Why, in words."""
    steps: Steps | None
    """Positions count builds, those without a value too; None where there are too few values."""
    notes: tuple[str, ...]


def direction(metric: Metric, ratio: float) -> Literal["regression", "improvement"]:
    """Say whether a ratio after / before is to the good."""
    return "improvement" if (ratio > 1) == metric.higher_is_better else "regression"


def judge(values: Sequence[Value], metric: Metric, min_change: float) -> Trend:
    """Find the change points of a history and say what became of the metric.

    The newest level decides: a regression that a later change point followed is past. Where the
    newest `SEGMENT_VALUES` builds do not reach an interactivity that builds before them reached,
    that is a regression without a size.

    Args:
        values: one per build, oldest first.
        metric: what they are.
        min_change: the smallest relative change that counts, e.g. 0.01.
    """
    places = [index for index, each in enumerate(values) if each.value is not None]
    found = [each.value for each in values if each.value is not None]
    steps = find_steps(found)
    lost = len(values) - (places[-1] + 1 if places else 0)
    notes = []
    if places and all(each.status == "unreachable" for each in values[len(values) - lost :]):
        if lost >= SEGMENT_VALUES:
            reason = f"the newest {lost} builds do not reach what builds before them reached"
            return Trend("regression", reason, _moved(steps, places), tuple(_doubts(values)))
        if lost:
            notes.append("the newest build does not reach what builds before it reached")
    notes += _doubts(values)
    if steps is None:
        builds = "1 build" if len(found) == 1 else f"{len(found)} builds"
        reason = f"{builds} with a value; change points need {MINIMUM_VALUES}"
        return Trend("insufficient data", reason, None, tuple(notes))
    alone = steps.newest_alone
    if alone is not None and alone.p_value < FAMILY_ERROR:
        notes.append(
            f"the newest build alone lies {alone.ratio - 1:+.1%} from the level before it, more "
            f"than its noise explains (p = {alone.p_value:.1g}): measure it again"
        )
    moved = _moved(steps, places)
    assert moved is not None
    if not moved.change_points:
        reason = f"one level, with a noise of {steps.noise:.1%} from build to build"
        return Trend("no change", reason, moved, tuple(notes))
    newest = moved.change_points[-1]
    size = newest.ratio - 1
    low, high = (each - 1 for each in newest.interval)
    reason = f"{size:+.1%} (95 % interval {low:+.1%} to {high:+.1%}, p = {newest.p_value:.1g})"
    if abs(size) < min_change:
        return Trend("no change", f"{reason}, below {min_change:.1%}", moved, tuple(notes))
    return Trend(direction(metric, newest.ratio), reason, moved, tuple(notes))


def _doubts(values: Sequence[Value]) -> list[str]:
    """Return each kind of flag in words, with how many builds have it; the newest one's texts."""
    said: dict[str, list[str]] = {}
    for each in values:
        texts: dict[str, list[str]] = {}
        for flag in each.flags:
            texts.setdefault(flag.code, []).append(flag.text)
        for code, own in texts.items():
            said.setdefault(code, []).append("; ".join(own))
    of = sum(each.value is not None for each in values)
    return [
        f"{code.replace('_', ' ')} in {len(builds)} of {of} builds"
        f"{', in the newest of them' if len(set(builds)) > 1 else ''}: {builds[-1]}"
        for code, builds in said.items()
    ]


def _moved(steps: Steps | None, places: Sequence[int]) -> Steps | None:
    """Return steps whose positions count the builds without a value too."""
    if steps is None:
        return None
    changes = tuple(replace(each, index=places[each.index]) for each in steps.change_points)
    strays = tuple(places[each] for each in steps.strays)
    return replace(steps, change_points=changes, strays=strays)
