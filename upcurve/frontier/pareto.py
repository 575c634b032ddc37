"""The frontier of a series: the points that no other point beats on both axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from upcurve.frontier.point import Point


def non_dominated(
    x: NDArray[np.float64], y: NDArray[np.float64], *ties: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Return the indices of the points that no other point dominates, by ascending x.

    A point is dominated where another has x and y at least as high and differs from it: of equal
    x only the highest y stays, of equal y only the highest x. Exact duplicates stay once.

    Args:
        x: float64 [N], finite.
        y: float64 [N], finite.
        ties: int64 [N] each; among exact duplicates the lowest in these, first to last, stays, so
            that the choice does not depend on the order of the points.

    Returns:
        intp [K]; x[result] ascends strictly and y[result] descends strictly.
    """
    order = np.lexsort((*reversed(ties), -y, -x))
    by_falling_x = y[order]
    keep = np.ones(len(order), dtype=np.bool_)
    keep[1:] = by_falling_x[1:] > np.maximum.accumulate(by_falling_x)[:-1]
    return order[keep][::-1]


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the non-dominated points by ascending interactivity, whatever the order given.

    All parallelism settings and concurrencies are pooled. Points are taken as they are: aggregate
    repeats first (`upcurve.frontier.repeats.frontier_of_repeats`).
    """
    x = np.array([point.interactivity for point in points], dtype=np.float64)
    y = np.array([point.tput_per_gpu for point in points], dtype=np.float64)
    ties = np.array(
        [(point.tp, point.gpus, point.concurrency, point.repeat, *point.place) for point in points],
        dtype=np.int64,
    ).reshape(-1, 10)
    return [points[index] for index in non_dominated(x, y, *ties.T)]
