"""Intervals of operating points: both axes, from one set of draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from upcurve.frontier.bootstrap import MINIMUM_REPEATS, Draws, interval
from upcurve.frontier.fit import Fit
from upcurve.frontier.uncertainty import Interval


@dataclass(frozen=True, slots=True)
class PointIntervals:
    """How far one operating point may be off, on both axes, from one set of draws."""

    repeats: int
    interactivity: Interval | None
    tput_per_gpu: Interval | None
    correlation: float | None
    """Of log interactivity and log throughput over the draws."""

    def to_dict(self) -> dict[str, Any]:
        """Return what this adds to the JSON object of a point."""
        return {
            "repeats": self.repeats,
            "interactivity_interval": list(self.interactivity) if self.interactivity else None,
            "tput_per_gpu_interval": list(self.tput_per_gpu) if self.tput_per_gpu else None,
            "correlation": self.correlation,
        }


def point_intervals(fit: Fit, draws: Draws | None) -> tuple[PointIntervals, ...]:
    """Return the intervals of each frontier point; empty ones where it has few repeats."""
    # A frontier point that was measured once is the very object that was measured.
    places = {id(point): index for index, point in enumerate(fit.repeats.operating_points)}
    found = []
    for point, group in zip(fit.frontier, fit.measured, strict=True):
        if draws is None or len(group) < MINIMUM_REPEATS:
            found.append(PointIntervals(len(group), None, None, None))
            continue
        place = places[id(point)]
        x, y = draws.x[:, place], draws.y[:, place]
        varies = bool(np.ptp(x) > 0 and np.ptp(y) > 0)
        found.append(
            PointIntervals(
                len(group),
                interval(x, point.interactivity),
                interval(y, point.tput_per_gpu),
                float(np.corrcoef(np.log(x), np.log(y))[0, 1]) if varies else None,
            )
        )
    return tuple(found)
