"""Steps in a history: where the level of a metric changed, by how much, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from upcurve.errors import InputError

Floats = NDArray[np.float64]

MINIMUM_VALUES = 6
"""Below, the noise of a history is not known well enough to tell a step from it."""
SEGMENT_VALUES = 2
"""Shortest segment: one value that stands alone may be a bad run, two are a level."""
FAMILY_ERROR = 0.01
"""Chance of a false change point in a whole history without any, after Bonferroni's correction."""
CONFIDENCE = 0.95
STRAY_SIGMAS = 3.0
"""A value off both neighbours, on one side of them, by this many standard deviations of such a
difference is a stray: a level of two that holds one bad run would be half a step."""
RESOLUTION = 1e-6
"""Smallest relative noise that is assumed: a history of equal values has none of its own."""


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A border between two levels of a history."""

    index: int
    """Position of the first value of the new level."""
    before: float
    """Geometric mean of the level before, in the metric's unit."""
    after: float
    ratio: float
    """after / before."""
    interval: tuple[float, float]
    """95 % interval of the ratio, for the border as it was found."""
    p_value: float
    """Two-sided, of a t-test of both levels, times the number of borders there could have been."""


@dataclass(frozen=True, slots=True)
class NewestAlone:
    """The newest value, held against the level before it: no step yet, but maybe its beginning."""

    ratio: float
    """Over the geometric mean of the level."""
    p_value: float
    """Chance of a value as far off, if nothing changed; two-sided."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A history taken apart into levels."""

    noise: float
    """Standard deviation of a value around its level, relative: 0.01 is 1 %."""
    change_points: tuple[ChangePoint, ...]
    """In the order of the history."""
    strays: tuple[int, ...]
    """Positions of values far off both neighbours; levels and noise are without them.

    At an end, off the only neighbour: the first value of a new level is a stray until a second one
    confirms it.
    """
    newest_alone: NewestAlone | None
    """None where the newest level has fewer than three values before the newest one."""


def find_steps(values: Sequence[float]) -> Steps | None:
    """Take a history apart into levels, in logarithms, so that a step is a ratio.

    1. Noise: the median absolute difference of neighbours, over sqrt(2) and the normal quantile,
       which steps do not inflate.
    2. Strays are left out: single values far off their neighbours.
    3. Borders: the segmentation of least squared error plus 2 sigma^2 log n for each border (the
       Bayesian information criterion), found exactly by PELT (R. Killick, P. Fearnhead, I. A.
       Eckley, "Optimal detection of changepoints with a linear computational cost", Journal of the
       American Statistical Association 107, 1590-1598, 2012) as in ruptures (C. Truong, L. Oudre,
       N. Vayatis, "Selective review of offline change point detection methods", Signal Processing
       167, 107299, 2020).
    4. Each border's two levels are held against each other by Student's t with the variance of all
       levels pooled; the p-value is multiplied by the number of places where the border could have
       been. The least sure border goes until all that stay are below `FAMILY_ERROR`.

    It assumes that the values are independent and scatter equally around their levels.

    Args:
        values: positive, one per build, oldest first.

    Returns:
        None where there are fewer than `MINIMUM_VALUES`.

    Raises:
        InputError: a value is not positive and finite.
    """
    if not all(0 < value < math.inf for value in values):
        raise InputError("history", "not all values are positive and finite", "leave those out")
    if len(values) < MINIMUM_VALUES:
        return None
    logs = np.log(np.asarray(values, dtype=np.float64))
    strays = _strays(logs)
    kept = np.setdiff1d(np.arange(len(logs)), strays)
    levels = _Levels(logs[kept], _pelt(logs[kept]))
    found = levels.tests()
    while found and max(each.p_value for each in found) > FAMILY_ERROR:
        weakest = max(found, key=lambda each: each.p_value)
        levels = _Levels(levels.logs, [each for each in levels.borders if each != weakest.index])
        found = levels.tests()
    return Steps(
        noise=levels.noise,
        change_points=tuple(replace(each, index=int(kept[each.index])) for each in found),
        strays=tuple(int(each) for each in strays),
        newest_alone=levels.newest_alone(float(logs[-1]), is_stray=len(logs) - 1 in strays),
    )


def _robust_noise(logs: Floats) -> float:
    """Return the standard deviation of the values around levels that seldom change."""
    median = float(np.median(np.abs(np.diff(logs))))
    return max(median / (math.sqrt(2) * 0.6745), RESOLUTION)


def _strays(logs: Floats) -> NDArray[np.intp]:
    """Return the positions of values far off their neighbours, on the same side of them."""
    steps = np.diff(logs)
    # An end has one neighbour, which counts twice.
    left = np.concatenate([-steps[:1], steps])
    right = np.concatenate([-steps, steps[-1:]])
    limit = STRAY_SIGMAS * math.sqrt(2) * _robust_noise(logs)
    far = (np.minimum(np.abs(left), np.abs(right)) > limit) & (left * right > 0)
    return np.flatnonzero(far)


def _pelt(logs: Floats) -> list[int]:
    from ruptures import KernelCPD  # 0.3 s that no other command is to pay

    penalty = 2 * _robust_noise(logs) ** 2 * math.log(len(logs))
    # The linear kernel is the squared error, computed in C.
    search = KernelCPD(kernel="linear", min_size=SEGMENT_VALUES).fit(logs[:, None])
    return [int(each) for each in search.predict(pen=penalty)[:-1]]


class _Levels:
    """Values split at borders, with the noise that is left around their means."""

    def __init__(self, logs: Floats, borders: Sequence[int]) -> None:
        self.logs = logs
        self.borders = list(borders)
        parts = np.split(logs, self.borders)
        self._means = [float(part.mean()) for part in parts]
        self._sizes = [len(part) for part in parts]
        self._freedom = len(logs) - len(parts)
        squares = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
        self.noise = max(math.sqrt(squares / self._freedom), RESOLUTION)

    def tests(self) -> list[ChangePoint]:
        places = len(self.logs) - 2 * SEGMENT_VALUES + 1
        quantile = float(stdtrit(self._freedom, (1 + CONFIDENCE) / 2))
        found = []
        for place, border in enumerate(self.borders):
            before, after = self._means[place : place + 2]
            size, error = after - before, self._error(*self._sizes[place : place + 2])
            p_value = 2 * float(stdtr(self._freedom, -abs(size) / error))
            low, high = size - quantile * error, size + quantile * error
            found.append(
                ChangePoint(
                    border,
                    math.exp(before),
                    math.exp(after),
                    math.exp(size),
                    (math.exp(low), math.exp(high)),
                    min(1.0, p_value * places),
                )
            )
        return found

    def newest_alone(self, newest: float, *, is_stray: bool) -> NewestAlone | None:
        # A stray is in no level already; else the newest value must not be part of its own measure.
        if self._sizes[-1] < 3 + (not is_stray):
            return None
        others = self if is_stray else _Levels(self.logs[:-1], self.borders)
        count = others._sizes[-1]
        size = newest - others._means[-1]
        p_value = 2 * float(stdtr(others._freedom, -abs(size) / others._error(count, 1)))
        return NewestAlone(math.exp(size), p_value)

    def _error(self, one: int, other: int) -> float:
        return self.noise * math.sqrt(1 / one + 1 / other)
