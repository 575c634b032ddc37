"""Hierarchical bootstrap: what the operating points of several series may as well have been.

Level one is the repeats. In logs, the deviation of an operating point is a sum over its rounds of
residual times a standard normal multiplier, times the square root of df / chi-squared(df): for one
point, and for any weighted sum of points of one set of rounds, that is Student's t. One multiplier
belongs to a round, not to a point: what a round shares (a launch, an hour, the machine), within a
series or between two that took turns, stays shared. Level two is the requests: few repeats can
agree by luck, so no axis of a point is drawn narrower than its requests let it be.

Deviations are around the mean of the logs. The figures themselves are medians, which an outlier
moves less; but the median of a sum is not the sum of medians, and intervals around medians miss
the truth of ratios and areas too often where rounds share much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, ndtri, stdtrit

from upcurve.frontier.interpolation import Floats
from upcurve.frontier.point import Point

CONFIDENCE = 0.95
MINIMUM_REPEATS = 3
"""Two repeats would give a Student quantile of 12.7: an interval that says nothing."""
DRAWS = 4000


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Operating points of one series as they may have come out."""

    x: Floats
    """Interactivity: float64 [D, P]."""
    y: Floats
    """Throughput per GPU: float64 [D, P]."""
    varied: tuple[bool, ...]
    """Per operating point, whether it has the repeats that a deviation rests on; [P]."""


def draw_series(
    series: Mapping[str, Sequence[Sequence[Point]]],
    baseline: str,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Draws]:
    """Draw the operating points of every series that has repeats, all from one set of multipliers.

    Args:
        series: by name, the repeats of each operating point.
        baseline: the series that rounds are paired with: by repeat index where it shares three
            or more, else by order. Either is valid, the first keeps what a round shares.
        draws: how many.
        seed: of the generator: the same input gives the same intervals.

    Returns:
        Draws by name; series without an operating point of three repeats are left out.
    """
    varied = {
        name: groups
        for name, groups in series.items()
        if any(len(group) >= MINIMUM_REPEATS for group in groups)
    }
    if not varied:
        return {}
    base = _indices(series[baseline])
    columns = {name: _columns(_indices(groups), base) for name, groups in varied.items()}
    chance = np.random.default_rng(seed)
    width = 1 + max(max(own.values()) for own in columns.values())
    multipliers = chance.standard_normal((draws, width))
    # Stratified: the tails of few degrees of freedom are the same from seed to seed.
    tails = chance.permutation((np.arange(draws) + chance.random(draws)) / draws)
    return {
        name: _draw(groups, columns[name], multipliers, tails, chance)
        for name, groups in varied.items()
    }


def _indices(groups: Sequence[Sequence[Point]]) -> list[int]:
    return sorted({point.repeat for group in groups for point in group})


def _columns(own: Sequence[int], base: Sequence[int]) -> dict[int, int]:
    """Return repeat index -> column of the multipliers."""
    known = {index: column for column, index in enumerate(base)}
    if len(known.keys() & set(own)) < MINIMUM_REPEATS:
        return {index: column for column, index in enumerate(own)}
    for index in own:
        known.setdefault(index, len(known))
    return known


def _draw(
    groups: Sequence[Sequence[Point]],
    columns: Mapping[int, int],
    multipliers: Floats,
    tails: Floats,
    chance: np.random.Generator,
) -> Draws:
    count = len(multipliers)
    means = np.empty((len(groups), 2))
    residuals = np.zeros((multipliers.shape[1], len(groups), 2))
    for place, group in enumerate(groups):
        logs = np.log([(point.interactivity, point.tput_per_gpu) for point in group])
        means[place] = logs.mean(axis=0)
        residuals[[columns[point.repeat] for point in group], place] = logs - means[place]
    sums = (multipliers @ residuals.reshape(len(residuals), -1)).reshape(count, -1, 2)
    squares = (residuals**2).sum(axis=0)
    found = np.broadcast_to(means, sums.shape).copy()
    heavy: dict[int, Floats] = {}
    for place, group in enumerate(groups):
        n = len(group)
        if n < MINIMUM_REPEATS:
            continue
        if n not in heavy:
            heavy[n] = np.sqrt((n - 1) / chdtri(n - 1, tails))[:, None]
        deviation = heavy[n] * sums[:, place] / np.sqrt(n * (n - 1))
        floor = _request_deviation(group) / np.sqrt(n)
        # Compare half-widths: Student's of the repeats, the normal one of the requests.
        reached = _quantile(n - 1) * np.sqrt(squares[place] / (n * (n - 1)))
        narrow = reached < float(ndtri((1 + CONFIDENCE) / 2)) * floor
        requests = floor * chance.standard_normal((count, 2))
        found[:, place] += np.where(narrow, requests, deviation)
    x, y = np.exp(np.moveaxis(found, -1, 0))
    return Draws(x, y, varied=tuple(len(group) >= MINIMUM_REPEATS for group in groups))


def _quantile(df: int) -> float:
    return float(stdtrit(df, (1 + CONFIDENCE) / 2))


def _request_deviation(group: Sequence[Point]) -> Floats:
    """Return the standard deviation of one repeat, by its requests alone: float64 [2]."""
    known = [point.facts.request_noise for point in group if point.facts]
    noise = [each for each in known if each is not None]
    found: Floats = np.sqrt(np.mean(noise, axis=0)) if noise else np.zeros(2)
    return found


def interval(values: Floats, estimate: float) -> tuple[float, float] | None:
    """Return the 2.5 and 97.5 percentiles of draws; None where more than 2.5 % are not finite.

    Args:
        values: float64 [D]; -inf and +inf take part at their ends, NaN at both.
        estimate: the figure that the interval stands beside, and is made to hold.
    """
    count = len(values)
    outside = int(count * (1 - CONFIDENCE) / 2)
    if np.count_nonzero(~np.isfinite(values)) > outside:
        return None
    low = np.partition(np.nan_to_num(values, nan=-np.inf, posinf=np.inf, neginf=-np.inf), outside)
    high = np.partition(
        np.nan_to_num(values, nan=np.inf, posinf=np.inf, neginf=-np.inf), count - 1 - outside
    )
    return min(float(low[outside]), estimate), max(float(high[count - 1 - outside]), estimate)


def intervals(values: Floats) -> tuple[Floats, Floats]:
    """Return the 2.5 and 97.5 percentiles of many sets of draws, as `interval` counts them.

    Args:
        values: float64 [D, T] without NaN; -inf and +inf take part at their ends.

    Returns:
        Low and high, float64 [T] each; not finite where more than 2.5 % of the draws are not.
    """
    count = len(values)
    outside = int(count * (1 - CONFIDENCE) / 2)
    ends = [outside, count - 1 - outside]
    low, high = np.partition(values, ends, axis=0)[ends]
    return low, high


def draw_ratios(own: Floats, base: Floats) -> Floats:
    """Return own / base by draw: +inf where only the baseline does not reach, NaN where undefined.

    Args:
        own: readings as of `upcurve.frontier.ensemble.read_frontiers`.
        base: the same, of the baseline.
    """
    defined = np.isfinite(own) & np.isfinite(base)
    ratios: Floats = np.divide(own, base, out=np.full(own.shape, np.nan), where=defined)
    ratios[np.isfinite(own) & (base == -np.inf)] = np.inf
    ratios[(own == -np.inf) & np.isfinite(base)] = -np.inf
    return ratios
