"""Shares of right answers: intervals, differences, and what a number of items can tell.

Wilson's score interval (Wilson 1927). The difference of two independent shares: Newcombe's hybrid
of two Wilson intervals (Newcombe 1998, Statistics in Medicine 17, 873-890, method 10). The
difference of two shares on the same items: Tango's score interval (Tango 1998, ibid., 891-908).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import ndtr, ndtri


def wilson(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's two-sided interval of a share.

    Args:
        right: items with a right answer, at most `n`.
        n: items, at least 1.
        confidence: coverage, such as 0.95.
    """
    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    middle = (right + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (right * (n - right) / n + z2 / 4)) / (n + z2)
    # At the ends rounding alone could leave the range, or the share.
    return 0.0 if right == 0 else middle - half, 1.0 if right == n else middle + half


def difference(
    right: tuple[int, int], n: tuple[int, int], confidence: float
) -> tuple[float, float]:
    """Return Newcombe's interval of first share - second share, of independent items.

    Args:
        right: items with a right answer, of the first and of the second.
        n: items of each.
        confidence: two-sided coverage; a one-sided test at 5 % takes 0.9.
    """
    first, second = right[0] / n[0], right[1] / n[1]
    low_1, high_1 = wilson(right[0], n[0], confidence)
    low_2, high_2 = wilson(right[1], n[1], confidence)
    gap = first - second
    return (
        gap - math.hypot(first - low_1, high_2 - second),
        gap + math.hypot(high_1 - first, second - low_2),
    )


def paired_difference(gained: int, lost: int, n: int, confidence: float) -> tuple[float, float]:
    """Return Tango's interval of first share - second share, on the same items.

    Args:
        gained: items that only the first has right.
        lost: items that only the second has right.
        n: items, at least 1.
        confidence: two-sided coverage; a one-sided test at 5 % takes 0.9.
    """
    quantile = float(ndtri((1 + confidence) / 2))

    def beyond(gap: float) -> float:
        return paired_score(gained, lost, n, gap)

    found = (gained - lost) / n
    # The statistic falls as the gap that it tests grows.
    return (
        _crossing(lambda gap: beyond(gap) > quantile, -1.0, found),
        _crossing(lambda gap: beyond(gap) > -quantile, found, 1.0),
    )


def _crossing(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return where something that holds at the left of an interval ceases to, by halving it."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def paired_score(gained: int, lost: int, n: int, gap: float) -> float:
    """Return Tango's statistic of the hypothesis that the difference is `gap`.

    It is standard normal under the hypothesis, in large samples; at a gap of 0 it is McNemar's.
    """
    excess = gained - lost - n * gap
    if abs(excess) < 1e-12 * n:
        return 0.0
    # The share that the second alone has right, at its most likely under the hypothesis.
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * gap
    c = -lost * gap * (1 - gap)
    second = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * second + gap * (1 - gap))
    return math.copysign(math.inf, excess) if variance <= 0 else excess / math.sqrt(variance)


def power(n: int, margin: float, discordance: float, confidence: float = 0.95) -> float:
    """Return how surely n items show that a share, in truth equal, is at most `margin` lower.

    Normal approximation of the one-sided test; items whose outcome differs carry all its variance.

    Args:
        n: items.
        margin: loss that is tolerated.
        discordance: share of items with another outcome; 2 p (1 - p) where outcomes of the two
            are independent.
        confidence: one-sided.
    """
    if discordance <= 0:
        return 1.0
    return float(ndtr(margin * math.sqrt(n / discordance) - ndtri(confidence)))


def needed(margin: float, discordance: float, wanted: float, confidence: float = 0.95) -> int:
    """Return the items with which `power` is at least `wanted`."""
    quantiles = float(ndtri(confidence) + ndtri(wanted))
    return max(1, math.ceil(discordance * (quantiles / margin) ** 2))
