"""Interactivities to compare at, where nobody names them one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from upcurve.errors import InputError
from upcurve.frontier.fit import fit_series
from upcurve.frontier.interpolation import DEFAULT_RULE
from upcurve.frontier.point import Point

MOST_TARGETS = 6
"""How many targets `round_targets` chooses at most: a table that fits one screen."""
MOST_EVERY = 1000


def targets_every(series: Mapping[str, Sequence[Point]], step: float) -> list[float]:
    """Return the multiples of a step that at least one frontier reaches, ascending.

    Raises:
        InputError: there is none, there are more than a thousand, or as `compare` does.
    """
    spans = _spans(series)
    low, high = min(start for start, _ in spans.values()), max(end for _, end in spans.values())
    first, last = math.ceil(low / step), math.floor(high / step)
    if not 0 < last - first + 1 <= MOST_EVERY:
        raise InputError(
            "every",
            f"{max(0, last - first + 1)} multiples of {step:g} lie on {low:.4g} to {high:.4g}",
            "give a step that fits the frontiers",
        )
    return [round(index * step, 9) for index in range(first, last + 1)]


def round_targets(series: Mapping[str, Sequence[Point]]) -> list[float]:
    """Return round interactivities that every frontier reaches: at most six, ascending.

    Raises:
        InputError: the frontiers have no interactivity in common, or as `compare` does.
    """
    ranges = _spans(series)
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


def _spans(series: Mapping[str, Sequence[Point]]) -> dict[str, tuple[float, float]]:
    """Return the lowest and the highest interactivity of each frontier."""
    knots = {
        name: fit_series(name, points, DEFAULT_RULE).frontier for name, points in series.items()
    }
    return {name: (own[0].interactivity, own[-1].interactivity) for name, own in knots.items()}
