"""Sequential tests against integration, scipy's t tests, and simulation of known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from upcurve.frontier.sequential import (
    EFFECT_VARIANCE,
    difference,
    drift,
    evidence_of_difference,
    noise,
    odds_of_bad,
    threshold,
    visible_difference,
)

GOOD = [0.01, -0.02, 0.015, 0.0, -0.01]
BAD = [-0.03, -0.05, -0.02, -0.04]


def test_noise_and_difference_are_those_of_the_t_test() -> None:
    deviation, freedom = noise([GOOD, BAD])
    pooled = math.sqrt((4 * np.var(GOOD, ddof=1) + 3 * np.var(BAD, ddof=1)) / 7)
    assert (deviation, freedom) == (pytest.approx(pooled), 7)
    expected = stats.ttest_ind(BAD, GOOD).confidence_interval(0.95)
    found = difference(GOOD, BAD)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.excludes_zero
    assert not difference(GOOD, GOOD).excludes_zero


def test_evidence_is_the_ratio_of_t_densities_averaged_over_the_prior() -> None:
    t, freedom = stats.ttest_ind(BAD, GOOD).statistic, 7
    size = 5 * 4 / 9

    def under(effect: float) -> float:
        density = stats.nct.pdf(t, freedom, effect * math.sqrt(size))
        return float(density * stats.norm.pdf(effect, scale=math.sqrt(EFFECT_VARIANCE)))

    expected = math.log(quad(under, -8, 8)[0] / stats.t.pdf(t, freedom))
    assert evidence_of_difference(GOOD, BAD) == pytest.approx(expected, rel=1e-4)


def test_odds_are_the_integral_over_both_means_and_the_noise() -> None:
    runs = [-0.01, -0.03]
    means, deviations = np.linspace(-0.3, 0.3, 1201), np.geomspace(2e-3, 0.5, 300)

    def over_mean(logs: list[float]) -> np.ndarray:
        exponent = sum((each - means) ** 2 for each in logs)[:, None] / (2 * deviations**2)
        return np.exp(-exponent).sum(axis=0) / deviations ** len(logs)

    def marginal(one: list[float], two: list[float]) -> float:
        # The grid of deviations is even in their logarithm, which is the prior.
        return float((over_mean(one) * over_mean(two)).sum())

    expected = math.log(marginal(GOOD, BAD + runs) / marginal(GOOD + runs, BAD))
    assert odds_of_bad(GOOD, BAD, runs) == pytest.approx(expected, rel=1e-3)


def test_odds_of_a_long_calibration_are_walds() -> None:
    random = np.random.default_rng(0)
    good, bad = random.normal(0, 0.02, 20000), random.normal(-0.03, 0.02, 20000)
    runs = [-0.02, -0.01, -0.03]
    deviation, _ = noise([good.tolist(), bad.tolist()])
    wald = stats.norm.logpdf(runs, bad.mean(), deviation).sum()
    wald -= stats.norm.logpdf(runs, good.mean(), deviation).sum()
    assert odds_of_bad(good.tolist(), bad.tolist(), runs) == pytest.approx(wald, rel=2e-3)
    assert threshold(0.01) == pytest.approx(math.log(99))


def test_a_difference_that_is_not_there_is_seen_no_oftener_than_the_error() -> None:
    random = np.random.default_rng(1)
    seen = 0
    for _ in range(1000):
        one, two = random.normal(0, 1, (2, 20)).tolist()
        seen += any(
            evidence_of_difference(one[:count], two[:count]) >= math.log(1 / 0.05)
            for count in range(3, 21)
        )
    assert seen / 1000 <= 0.05
    assert seen > 0


@pytest.mark.parametrize("count", [6, 15])
def test_what_is_called_visible_is_seen_in_19_of_20_cases(count: int) -> None:
    random = np.random.default_rng(2)
    visible = visible_difference(1.0, count, error=0.05)
    seen = 0
    for _ in range(1000):
        one = random.normal(0, 1, count).tolist()
        two = random.normal(visible, 1, count).tolist()
        seen += evidence_of_difference(one, two) >= math.log(1 / 0.05)
    assert 0.92 <= seen / 1000 <= 0.98


def test_too_few_runs_show_nothing() -> None:
    assert visible_difference(0.02, 2, error=1e-4) == math.inf


def test_equal_measurements_have_a_least_noise() -> None:
    assert evidence_of_difference([0.0] * 3, [0.0] * 3) < 0
    assert odds_of_bad([0.0] * 3, [0.5] * 3, [0.5, 0.5]) > threshold(0.01)


def test_drift_finds_the_shift_that_both_revisions_share() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        before = [random.normal(mean, 0.02, 6).tolist() for mean in (0.0, -0.1)]
        after = [random.normal(0.01 + mean, 0.02, n).tolist() for mean, n in ((0.0, 3), (-0.1, 2))]
        found = drift(before, after, confidence=0.9)
        covered += found.low <= 0.01 <= found.high
    assert 0.86 <= covered / 400 <= 0.94
    assert drift([GOOD, BAD], [[0.2], []], confidence=0.99).low > 0.1
