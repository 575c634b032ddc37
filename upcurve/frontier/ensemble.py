"""Many frontiers at once: the draws of a bootstrap, each read at the same targets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from upcurve.frontier.interpolation import RULES, Floats, hermite

GAUSS = np.array([-1.0, 1.0]) / np.sqrt(3)
"""Nodes on [-1, 1] of Gauss and Legendre's rule of two, which is exact for cubics."""


def read_frontiers(x: Floats, y: Floats, targets: Floats, rule: str) -> Floats:
    """Read the curve through the frontier of each draw.

    Args:
        x: interactivity, float64 [D, P].
        y: throughput, float64 [D, P].
        targets: float64 [D, T].
        rule: a name of `upcurve.frontier.interpolation.RULES`.

    Returns:
        float64 [D, T]; -inf above the fastest point of a draw, +inf below its slowest.
    """
    values = np.empty(targets.shape)
    for rows, own_x, own_y in _frontiers(x, y):
        values[rows] = _read(own_x, own_y, targets[rows], rule)
    return values


def _frontiers(x: Floats, y: Floats) -> Iterator[tuple[NDArray[np.bool_], Floats, Floats]]:
    """Yield, for each number K of knots, which draws have it, and their knots [N, K], ascending."""
    order = np.lexsort((-y, -x), axis=-1)
    x, y = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
    keep = np.ones(x.shape, dtype=np.bool_)
    keep[:, 1:] = y[:, 1:] > np.maximum.accumulate(y, axis=1)[:, :-1]
    knots = keep.sum(axis=1)
    for count in np.unique(knots):
        rows = knots == count
        shape = (-1, int(count))
        own_x, own_y = (each[rows][keep[rows]].reshape(shape)[:, ::-1] for each in (x, y))
        yield rows, own_x, own_y


def _slopes(x: Floats, y: Floats, rule: str) -> Floats:
    """Return the slopes at both ends of each interval, float64 [2, N, K - 1], of K >= 2 knots."""
    if x.shape[1] > 2:
        return RULES[rule](x, y)
    secants = np.diff(y) / np.diff(x)
    return np.stack([secants, secants])


def _read(x: Floats, y: Floats, targets: Floats, rule: str) -> Floats:
    above, below = targets > x[:, -1:], targets < x[:, :1]
    if x.shape[1] == 1:
        values = np.broadcast_to(y, targets.shape)
    else:
        slopes = _slopes(x, y, rule)
        left = np.clip(_interval(x, targets), 0, x.shape[1] - 2)
        ends = [
            np.take_along_axis(each, left, 1)
            for each in (x[:, :-1], x[:, 1:], y[:, :-1], y[:, 1:], slopes[0], slopes[1])
        ]
        values = hermite(np.clip(targets, x[:, :1], x[:, -1:]), *ends)
    return np.where(above, -np.inf, np.where(below, np.inf, values))


def _interval(x: Floats, targets: Floats) -> NDArray[np.intp]:
    found = np.full(targets.shape, -1, dtype=np.intp)
    for knot in range(x.shape[1]):
        found += targets >= x[:, knot : knot + 1]
    return found


def area_ratios(
    own: tuple[Floats, Floats], base: tuple[Floats, Floats], rule: str
) -> tuple[Floats, Floats, Floats]:
    """Return the ratio of the areas under two curves over the band that both cover, by draw.

    Args:
        own: interactivity and throughput of a series' operating points, float64 [D, P] each.
        base: the same of the baseline, float64 [D, Q].
        rule: how to interpolate.

    Returns:
        Ratio, low end and high end of the band, float64 [D] each; the ratio is NaN where two
        frontiers share no band.
    """
    low = np.maximum(_slowest(*own), _slowest(*base))
    high = np.minimum(own[0].max(axis=1), base[0].max(axis=1))
    shared = high > low
    ratios = np.full(len(low), np.nan)
    if shared.any():
        own_area, base_area = (
            _areas(x[shared], y[shared], low[shared], high[shared], rule) for x, y in (own, base)
        )
        ratios[shared] = own_area / base_area
    return ratios, low, high


def _areas(x: Floats, y: Floats, low: Floats, high: Floats, rule: str) -> Floats:
    """Return the area under the curve of each draw from low to high, which lie on it: [D]."""
    areas = np.empty(len(x))
    for rows, own_x, own_y in _frontiers(x, y):
        slopes = _slopes(own_x, own_y, rule)
        # The part of each interval that lies in the band; where none does, of no width.
        start, end = (
            np.clip(each, low[rows, None], high[rows, None])
            for each in (own_x[:, :-1], own_x[:, 1:])
        )
        half = (end - start) / 2
        ends = own_x[:, :-1], own_x[:, 1:], own_y[:, :-1], own_y[:, 1:], slopes[0], slopes[1]
        middle = (start + end) / 2
        sums = sum(hermite(middle + node * half, *ends) for node in GAUSS)
        areas[rows] = (sums * half).sum(axis=1)
    return areas


def _slowest(x: Floats, y: Floats) -> Floats:
    """Return the low end of each frontier: the interactivity of the highest throughput."""
    best = y == y.max(axis=1, keepdims=True)
    found: Floats = np.where(best, x, -np.inf).max(axis=1)
    return found
