"""One number for two curves: the ratio of the areas under them, over the band that both cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from upcurve.frontier.bootstrap import Draws, interval
from upcurve.frontier.ensemble import area_ratios
from upcurve.frontier.interpolation import Floats
from upcurve.frontier.point import Point


@dataclass(frozen=True, slots=True)
class AreaRatio:
    """Mean throughput of a series over that of the baseline, over a band of interactivity."""

    ratio: float
    band: tuple[float, float]
    """In tok/s/user: where both frontiers have a value."""
    interval: tuple[float, float] | None
    """95 %; each draw has its own band. None without repeats."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "ratio": self.ratio,
            "band": list(self.band),
            "interval": list(self.interval) if self.interval else None,
        }


def area_ratio(
    own: Sequence[Point],
    base: Sequence[Point],
    rule: str,
    draws: tuple[Draws, Draws] | None = None,
) -> AreaRatio | None:
    """Return the area ratio of two frontiers; None where they share no band.

    Args:
        own: frontier of the series.
        base: frontier of the baseline.
        rule: how to interpolate.
        draws: of both, where both have repeats at every frontier point.
    """
    ratios, low, high = area_ratios(_axes(own), _axes(base), rule)
    if not np.isfinite(ratios[0]):
        return None
    ratio = float(ratios[0])
    spread = None
    if draws:
        mine, other = draws
        spread = interval(area_ratios((mine.x, mine.y), (other.x, other.y), rule)[0], ratio)
    return AreaRatio(ratio, (float(low[0]), float(high[0])), spread)


def _axes(points: Sequence[Point]) -> tuple[Floats, Floats]:
    return (
        np.array([[point.interactivity for point in points]], dtype=np.float64),
        np.array([[point.tput_per_gpu for point in points]], dtype=np.float64),
    )
