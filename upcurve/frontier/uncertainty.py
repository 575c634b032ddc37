"""How far repeated measurements spread: intervals of throughput, spreads of ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
MINIMUM_ROUNDS = 3
"""Two rounds would give a Student quantile of 12.7: an interval that says nothing."""


@dataclass(frozen=True, slots=True)
class RatioSpread:
    """Ratios of two series, one for each round: rounds are interleaved, so each ratio is paired."""

    rounds: int
    minimum: float
    median: float
    maximum: float


def student_interval(throughputs: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % Student-t interval of the geometric mean throughput over rounds.

    Each round is a full sweep, and each value is read from the curve through that round's own
    frontier. Assumes that rounds are independent and that their log throughputs are normal with
    one variance; it covers what differs from round to round, not what all rounds share (a host, a
    launch, a day). A hierarchical bootstrap over launches, rounds and requests is to succeed it.

    Args:
        throughputs: one positive value for each round.

    Returns:
        (low, high) in the unit of the throughputs; None for fewer than three rounds.
    """
    count = len(throughputs)
    if count < MINIMUM_ROUNDS:
        return None
    logs = np.log(throughputs)
    quantile = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    margin = quantile * float(logs.std(ddof=1)) / count**0.5
    centre = float(logs.mean())
    return float(np.exp(centre - margin)), float(np.exp(centre + margin))


def ratio_spread(numerators: Sequence[float], denominators: Sequence[float]) -> RatioSpread:
    """Return the spread of numerator / denominator over rounds given in one order."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return RatioSpread(len(ratios), min(ratios), median(ratios), max(ratios))
