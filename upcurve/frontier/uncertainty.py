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
    """Run-to-run noise of an operating point, as repeats of one fingerprint showed it before."""

    variation: float
    """Coefficient of variation of one run's throughput, pooled; 0.01 is 1 %."""
    runs: int
    """Runs that it was learned from."""
    interactivity: float = 0.0
    """The same of its interactivity."""
    covariance: float = 0.0
    """Of log interactivity and log throughput."""

    def at_interactivity(self, elasticity: float) -> float:
        """Return the variation of one run's throughput at equal interactivity.

        A point that comes out faster per user shifts its curve sideways as well: what that is in
        throughput depends on how steep the curve is.

        Args:
            elasticity: d log throughput / d log interactivity of the curve there.
        """
        variance = (
            self.variation**2
            - 2 * elasticity * self.covariance
            + (elasticity * self.interactivity) ** 2
        )
        return math.sqrt(max(0.0, variance))

    def describe(self) -> str:
        """Return the noise of one run in words."""
        spread = f"+-{1.96 * self.variation:.1%} at a concurrency"
        return f"the throughput of one run is within {spread} ({self.runs} runs before)"


def noise_floor(repeats: Iterable[Sequence[tuple[float, float]]]) -> NoiseFloor | None:
    """Pool the variation of logarithms over groups of repeats.

    Args:
        repeats: (interactivity, throughput) of repeats of one operating point under one
            fingerprint, by group.

    Returns:
        None where no group has two.
    """
    products, freedom, runs = np.zeros((2, 2)), 0, 0
    for group in repeats:
        if len(group) > 1:
            logs = np.log(group)
            deviations = logs - logs.mean(axis=0)
            products += deviations.T @ deviations
            freedom += len(group) - 1
            runs += len(group)
    if not freedom:
        return None
    (of_x, shared), (_, of_y) = (products / freedom).tolist()
    return NoiseFloor(math.sqrt(of_y), runs, math.sqrt(of_x), shared)


def inside_noise(ratio: float, own: float | None, base: float | None) -> bool:
    """Whether two single runs of the same thing may well differ by this ratio.

    Args:
        ratio: of their throughputs.
        own: coefficient of variation of one of them; None where it is not known.
        base: the same of the other.
    """
    if own is None or base is None:
        return False
    return abs(math.log(ratio)) <= 1.96 * math.hypot(own, base)


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
