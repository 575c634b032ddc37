"""How far figures may be off: intervals of readings and ratios, spreads by round, noise floors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.special import stdtrit

from upcurve.frontier.bootstrap import CONFIDENCE, MINIMUM_REPEATS, Draws, draw_ratios, interval
from upcurve.frontier.ensemble import read_frontiers
from upcurve.frontier.interpolation import Floats

Interval = tuple[float, float]

__all__ = [
    "CONFIDENCE",
    "MINIMUM_ROUNDS",
    "Interval",
    "NoiseFloor",
    "RatioSpread",
    "TargetDraws",
    "inside_noise",
    "noise_floor",
    "ratio_spread",
    "student_interval",
]

MINIMUM_ROUNDS = MINIMUM_REPEATS


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
    launch, a day).

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


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """Run-to-run noise of throughput, as repeats of one fingerprint showed it before."""

    variation: float
    """Coefficient of variation of one run, pooled; 0.01 is 1 %."""
    runs: int
    """Runs that it was learned from."""

    def describe(self) -> str:
        """Return the noise of one run in words."""
        return f"one run is within +-{1.96 * self.variation:.1%} ({self.runs} runs before)"


def noise_floor(repeats: Iterable[Sequence[float]]) -> NoiseFloor | None:
    """Pool the variation of log throughput over groups of repeats.

    Args:
        repeats: throughputs of repeats of one operating point under one fingerprint, by group.

    Returns:
        None where no group has two.
    """
    squares, freedom, runs = 0.0, 0, 0
    for group in repeats:
        if len(group) > 1:
            logs = np.log(group)
            squares += float(((logs - logs.mean()) ** 2).sum())
            freedom += len(group) - 1
            runs += len(group)
    return NoiseFloor(math.sqrt(squares / freedom), runs) if freedom else None


def inside_noise(ratio: float, own: NoiseFloor | None, base: NoiseFloor | None) -> bool:
    """Whether two single runs of the same thing may well differ by this ratio."""
    if own is None or base is None:
        return False
    return abs(math.log(ratio)) <= 1.96 * math.hypot(own.variation, base.variation)


@dataclass(frozen=True, slots=True, eq=False)
class TargetDraws:
    """The draws of one series, read at the targets of a comparison."""

    values: Floats
    """Throughput per GPU: float64 [D, T], as `read_frontiers` gives it."""

    @classmethod
    def read(cls, draws: Draws, targets: Sequence[float], rule: str) -> TargetDraws:
        """Read every draw at every target."""
        at = np.broadcast_to(np.array(targets, dtype=np.float64), (len(draws.x), len(targets)))
        return cls(read_frontiers(draws.x, draws.y, at, rule))

    def interval(self, target: int, estimate: float) -> Interval | None:
        """Return the 95 % interval of the throughput at a target, by its place."""
        return interval(self.values[:, target], estimate)

    def ratio_interval(self, base: TargetDraws, target: int, estimate: float) -> Interval | None:
        """Return the 95 % interval of the ratio over a baseline at a target, by its place."""
        return interval(draw_ratios(self.values[:, target], base.values[:, target]), estimate)
