"""Many frontiers at once: the draws of a bootstrap, each read at the same targets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upcurve.frontier.interpolation import RULES, Floats, hermite

AREA_SAMPLES = 64
"""Midpoints that an area is summed over: the error of a curve of a few cubics is below 0.1 %."""


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
    order = np.lexsort((-y, -x), axis=-1)
    x, y = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
    keep = np.ones(x.shape, dtype=np.bool_)
    keep[:, 1:] = y[:, 1:] > np.maximum.accumulate(y, axis=1)[:, :-1]
    knots = keep.sum(axis=1)
    values = np.empty(targets.shape)
    for count in np.unique(knots):
        rows = knots == count
        shape = (-1, int(count))
        own_x = x[rows][keep[rows]].reshape(shape)[:, ::-1]
        own_y = y[rows][keep[rows]].reshape(shape)[:, ::-1]
        values[rows] = _read(own_x, own_y, targets[rows], rule)
    return values


def _read(x: Floats, y: Floats, targets: Floats, rule: str) -> Floats:
    above, below = targets > x[:, -1:], targets < x[:, :1]
    if x.shape[1] == 1:
        values = np.broadcast_to(y, targets.shape)
    else:
        secants = np.diff(y) / np.diff(x)
        slopes = RULES[rule](x, y) if x.shape[1] > 2 else np.stack([secants, secants])
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
    middles = (np.arange(AREA_SAMPLES) + 0.5) / AREA_SAMPLES
    at = low[:, None] + (high - low)[:, None] * middles
    shared = high > low
    ratios = np.full(len(low), np.nan)
    if shared.any():
        sums = [
            read_frontiers(x[shared], y[shared], at[shared], rule).sum(axis=1)
            for x, y in (own, base)
        ]
        ratios[shared] = sums[0] / sums[1]
    return ratios, low, high


def _slowest(x: Floats, y: Floats) -> Floats:
    """Return the low end of each frontier: the interactivity of the highest throughput."""
    best = y == y.max(axis=1, keepdims=True)
    found: Floats = np.where(best, x, -np.inf).max(axis=1)
    return found
