"""Curves through frontier points: cubic Hermite under named slope rules, never extrapolated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from upcurve.errors import InputError

Floats = NDArray[np.float64]
Status = Literal["measured", "interpolated", "unreachable", "below_range"]
Segment = Literal["interior", "end"]

DEFAULT_RULE = "published"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a curve says at one x."""

    value: float | None
    """y, or None outside the knots."""
    status: Status
    segment: Segment | None
    """Where an interpolated value lies: the first or last interval is an "end"."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A piecewise cubic through its knots, with no value outside them.

    Build it with `Curve.through`.
    """

    x: Floats
    """Knots: float64 [K], strictly ascending."""
    y: Floats
    """Values at the knots: float64 [K]."""
    slopes: Floats
    """dy/dx at the left and the right end of every interval: float64 [2, K - 1]."""

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float], rule: str = DEFAULT_RULE) -> Curve:
        """Return the curve through knots under a named rule.

        Args:
            x: K >= 1 knots, strictly ascending.
            y: K values.
            rule: a name of `RULES`. Two knots give the straight line under every rule, one knot
                a value only there.

        Raises:
            InputError: unknown rule, or knots that are not finite and strictly ascending.
        """
        if rule not in RULES:
            raise InputError(
                "rule", f"unknown interpolation rule {rule!r}", f"give one of {', '.join(RULES)}"
            )
        knots = np.array(x, dtype=np.float64)
        values = np.array(y, dtype=np.float64)
        finite = np.isfinite(knots).all() and np.isfinite(values).all()
        if not (len(knots) == len(values) > 0 and finite and (np.diff(knots) > 0).all()):
            raise InputError(
                "knots",
                "not one or more finite points of strictly ascending x",
                "give the points of a frontier",
            )
        widths = np.diff(knots)
        secants = np.diff(values) / widths
        slopes = RULES[rule](knots, values) if len(knots) > 2 else np.stack([secants, secants])
        return cls(knots, values, slopes)

    def at(self, x: float) -> Reading:
        """Read the curve at one x."""
        if x > self.x[-1]:
            return Reading(None, "unreachable", None)
        if x < self.x[0]:
            return Reading(None, "below_range", None)
        interval = int(np.searchsorted(self.x, x, side="right")) - 1
        if self.x[interval] == x:
            return Reading(float(self.y[interval]), "measured", None)
        outer = interval in (0, len(self.x) - 2)
        return Reading(float(self.sample([x])[0]), "interpolated", "end" if outer else "interior")

    def sample(self, xs: ArrayLike) -> Floats:
        """Return y at every x: float64 [N] for [N]; NaN outside the knots."""
        targets = np.asarray(xs, dtype=np.float64)
        inside = (targets >= self.x[0]) & (targets <= self.x[-1])
        targets = np.where(inside, targets, np.nan)
        if len(self.x) == 1:
            return np.where(inside, self.y[0], np.nan)
        left = np.clip(np.searchsorted(self.x, targets, side="right") - 1, 0, len(self.x) - 2)
        ends = self.x[left], self.x[left + 1], self.y[left], self.y[left + 1]
        return hermite(targets, *ends, self.slopes[0][left], self.slopes[1][left])

    def elasticity(self, x: float) -> float:
        """Return d log y / d log x at an x between the knots; 0 where there is one knot."""
        step = 1e-4
        low, high = max(x * (1 - step), self.x[0]), min(x * (1 + step), self.x[-1])
        if low >= high:
            return 0.0
        ends = np.log(self.sample([low, high]))
        return float((ends[1] - ends[0]) / np.log(high / low))


def hermite(
    at: Floats, x0: Floats, x1: Floats, y0: Floats, y1: Floats, slope0: Floats, slope1: Floats
) -> Floats:
    """Return the cubic through (x0, y0) and (x1, y1) with these slopes there; shapes as `at`."""
    width = x1 - x0
    u = (at - x0) / width
    v = 1 - u
    # This form of the Hermite basis is exact at u = 0 and u = 1: knots come out unchanged.
    values: Floats = (
        y0 * (1 + 2 * u) * v**2
        + y1 * (1 + 2 * v) * u**2
        + width * (slope0 * u * v**2 - slope1 * u**2 * v)
    )
    return values


def _per_interval(knot_slopes: Floats) -> Floats:
    return np.stack([knot_slopes[..., :-1], knot_slopes[..., 1:]])


def _steffen_interior(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Return slopes at the knots [..., K] (ends still 0), secants and widths [..., K - 1].

    M. Steffen, "A simple method for monotonic interpolation in one dimension", Astronomy and
    Astrophysics 239, 443-450 (1990), equation 11.
    """
    h = np.diff(x)
    s = np.diff(y) / h
    p = (s[..., :-1] * h[..., 1:] + s[..., 1:] * h[..., :-1]) / (h[..., :-1] + h[..., 1:])
    m = np.zeros_like(x)
    limit = np.minimum(np.minimum(np.abs(s[..., :-1]), np.abs(s[..., 1:])), np.abs(p) / 2)
    m[..., 1:-1] = (np.sign(s[..., :-1]) + np.sign(s[..., 1:])) * limit
    return m, s, h


def published(x: Floats, y: Floats) -> Floats:
    """Steffen's interior slopes; ends where the second derivative is zero.

    m_end = (3 s_end - m_neighbour) / 2, as in d3's curveMonotoneX: the rule of the published
    InferenceX comparison.
    """
    m, s, _ = _steffen_interior(x, y)
    m[..., 0] = (3 * s[..., 0] - m[..., 1]) / 2
    m[..., -1] = (3 * s[..., -1] - m[..., -2]) / 2
    return _per_interval(m)


def linear(x: Floats, y: Floats) -> Floats:
    """Straight lines between the knots."""
    secants = np.diff(y) / np.diff(x)
    return np.stack([secants, secants])


def secant_ends(x: Floats, y: Floats) -> Floats:
    """Steffen's interior slopes; the end slopes are those of the end secants."""
    m, s, _ = _steffen_interior(x, y)
    m[..., 0], m[..., -1] = s[..., 0], s[..., -1]
    return _per_interval(m)


def steffen(x: Floats, y: Floats) -> Floats:
    """Steffen's interior slopes and his own ends: a parabola's slope, limited (eq. 24-27)."""
    m, s, h = _steffen_interior(x, y)
    for end, neighbour in ((0, 1), (-1, -2)):
        weight = h[..., end] / (h[..., end] + h[..., neighbour])
        p = s[..., end] * (1 + weight) - s[..., neighbour] * weight
        limit = np.minimum(np.abs(s[..., end]), np.abs(p) / 2)
        m[..., end] = (np.sign(p) + np.sign(s[..., end])) * limit
    return _per_interval(m)


def pchip(x: Floats, y: Floats) -> Floats:
    """Fritsch and Butland's weighted harmonic mean slopes: what scipy calls PCHIP.

    Own, because scipy's takes one curve at a time; a test holds the two together.
    """
    h = np.diff(x)
    s = np.diff(y) / h
    m = np.zeros_like(x)
    left, right = 2 * h[..., 1:] + h[..., :-1], h[..., 1:] + 2 * h[..., :-1]
    falls = s[..., :-1] * s[..., 1:] > 0
    inverse = np.divide(left, s[..., :-1], out=np.ones_like(left), where=falls)
    inverse += np.divide(right, s[..., 1:], out=np.ones_like(right), where=falls)
    m[..., 1:-1] = np.where(falls, (left + right) / inverse, 0)
    for end, neighbour in ((0, 1), (-1, -2)):
        near, far = s[..., end], s[..., neighbour]
        widths = h[..., end] + h[..., neighbour]
        slope = ((widths + h[..., end]) * near - h[..., end] * far) / widths
        slope = np.where(slope * near > 0, slope, 0)
        steep = (near * far < 0) & (np.abs(slope) > 3 * np.abs(near))
        m[..., end] = np.where(steep, 3 * near, slope)
    return _per_interval(m)


RULES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "published": published,
    "linear": linear,
    "secant_ends": secant_ends,
    "steffen": steffen,
    "pchip": pchip,
}
"""Rule name -> slopes float64 [2, ..., K - 1] of the K - 1 intervals, from K >= 3 knots x and y
[..., K]: one curve, or N of them [N, K] at once."""
