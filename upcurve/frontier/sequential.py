"""Sequential tests on logarithms of a metric: do two revisions differ, and which is a third like?

All of them treat measurements as independent and normal with one unknown variance around the mean
of their revision. They may be asked after every measurement: stopping early costs nothing of the
stated error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import nctdtrinc, stdtrit

CONFIDENCE = 0.95
EFFECT_VARIANCE = 2.0
"""Prior variance of a difference in units of the noise: 1.4 times the noise is typical."""

_SMALLEST_NOISE = 1e-6
"""Relative noise below which measurements count as equal: clocks are no finer."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A difference of log means with its two-sided interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class _Group:
    """Count, mean and sum of squared deviations of one revision's log measurements."""

    count: int
    mean: float
    squares: float

    @classmethod
    def of(cls, logs: Sequence[float]) -> _Group:
        mean = math.fsum(logs) / len(logs)
        return cls(len(logs), mean, math.fsum((each - mean) ** 2 for each in logs))


def noise(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Return the pooled standard deviation within groups, and its degrees of freedom.

    Args:
        groups: log measurements of each revision; at least one group has two.
    """
    found = [_Group.of(logs) for logs in groups if logs]
    freedom = sum(each.count - 1 for each in found)
    squares = _with_least_noise(sum(each.squares for each in found), freedom)
    return math.sqrt(squares / freedom), freedom


def difference(
    first: Sequence[float],
    second: Sequence[float],
    *,
    others: Sequence[Sequence[float]] = (),
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return mean(second) - mean(first) with its Student-t interval.

    Args:
        first: log measurements of one revision.
        second: of another.
        others: of further revisions, which tell of the noise alone.
        confidence: of the interval.
    """
    deviation, freedom = noise([first, second, *others])
    value = math.fsum(second) / len(second) - math.fsum(first) / len(first)
    scale = deviation * math.sqrt(1 / len(first) + 1 / len(second))
    margin = _quantile(freedom, confidence) * scale
    return Estimate(value, value - margin, value + margin)


def evidence_of_difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the log Bayes factor that two revisions differ, over that they are equal.

    The two-sample t test of M. Gönen, W. O. Johnson, Y. Lu and P. H. Westfall, "The Bayesian
    two-sample t test", The American Statistician 59, 252-257 (2005), with a normal prior on the
    difference over the noise. Where the two are equal it exceeds log(1 / a) at any time with
    probability at most a (A. Hendriksen, R. de Heide, P. Grünwald, "Optional stopping with Bayes
    factors", Bayesian Analysis 16, 961-989 (2021)).

    Args:
        first: log measurements of one revision, two or more.
        second: of the other, two or more.
    """
    deviation, freedom = noise([first, second])
    size = 1 / (1 / len(first) + 1 / len(second))
    value = math.fsum(second) / len(second) - math.fsum(first) / len(first)
    squared_t = value**2 * size / deviation**2
    wider = 1 + size * EFFECT_VARIANCE
    gain = math.log1p(squared_t / freedom) - math.log1p(squared_t / (freedom * wider))
    return (freedom + 1) / 2 * gain - math.log(wider) / 2


def visible_difference(
    deviation: float, count: int, *, error: float, power: float = CONFIDENCE
) -> float:
    """Return the difference that `evidence_of_difference` shows with `power`, looked at once.

    Under it Student's t, then noncentral, exceeds what the evidence needs with that probability.

    Args:
        deviation: standard deviation of one log measurement.
        count: measurements of each of the two revisions, two or more.
        error: at which the evidence is to convince.
        power: share of cases in which it does; 0.5 gives the difference that just convinces.

    Returns:
        A difference of logs; infinite where so few measurements never convince.
    """
    freedom, wider = 2 * count - 2, 1 + count / 2 * EFFECT_VARIANCE
    factor = math.exp(2 / (freedom + 1) * (math.log(1 / error) + math.log(wider) / 2))
    if factor >= wider:
        return math.inf
    t = math.sqrt(freedom * (factor - 1) / (1 - factor / wider))
    return float(nctdtrinc(freedom, 1 - power, t)) * deviation * math.sqrt(2 / count)


def odds_of_bad(good: Sequence[float], bad: Sequence[float], runs: Sequence[float]) -> float:
    """Return the log odds that a revision is as the bad one, over that it is as the good one.

    Wald's sequential probability ratio with what he takes as known, both means and the noise,
    integrated out under flat priors on the means and on the logarithm of the noise: n1 and n2
    measurements around two means with a sum of squared deviations S have the marginal likelihood
    (n1 n2)^(-1/2) S^(-(n1 + n2 - 2) / 2), up to a constant. With a calibration of infinite length
    this is Wald's own ratio.

    Args:
        good: log measurements of the good revision.
        bad: of the bad one.
        runs: of the revision in question, one or more.
    """
    as_good = _log_marginal([*good, *runs], bad)
    as_bad = _log_marginal(good, [*bad, *runs])
    return as_bad - as_good


def threshold(error: float) -> float:
    """Return the log odds at which a decision is wrong with at most `error` on either side.

    A. Wald, "Sequential tests of statistical hypotheses", Annals of Mathematical Statistics 16,
    117-186 (1945): log((1 - error) / error).
    """
    return math.log((1 - error) / error)


def drift(
    calibrated: Sequence[Sequence[float]],
    controls: Sequence[Sequence[float]],
    *,
    confidence: float,
) -> Estimate:
    """Return by how much later measurements of the same revisions lie above earlier ones.

    Each revision's own shift is weighted by the inverse of its variance.

    Args:
        calibrated: earlier log measurements, one sequence per revision, none empty.
        controls: later ones in the same order; some may be empty, not all.
        confidence: of the interval.
    """
    deviation, freedom = noise([*calibrated, *controls])
    total = weights = 0.0
    for before, after in zip(calibrated, controls, strict=True):
        if after:
            weight = 1 / (1 / len(before) + 1 / len(after))
            shift = math.fsum(after) / len(after) - math.fsum(before) / len(before)
            total, weights = total + weight * shift, weights + weight
    value = total / weights
    margin = _quantile(freedom, confidence) * deviation / math.sqrt(weights)
    return Estimate(value, value - margin, value + margin)


def _log_marginal(first: Sequence[float], second: Sequence[float]) -> float:
    one, two = _Group.of(first), _Group.of(second)
    freedom = one.count + two.count - 2
    squares = _with_least_noise(one.squares + two.squares, freedom)
    return -(math.log(one.count * two.count) + freedom * math.log(squares)) / 2


def _with_least_noise(squares: float, freedom: int) -> float:
    return max(squares, freedom * _SMALLEST_NOISE**2)


def _quantile(freedom: int, confidence: float) -> float:
    return float(stdtrit(freedom, (1 + confidence) / 2))
