"""Intervals against closed forms, published examples, maximised likelihoods and draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm

from upcurve.accuracy.proportions import (
    difference,
    needed,
    paired_difference,
    paired_score,
    power,
    wilson,
)

COUNTS = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
PAIRS = st.integers(2, 400).flatmap(
    lambda n: st.tuples(st.integers(0, n // 2), st.integers(0, n - n // 2), st.just(n))
)


@given(COUNTS, st.floats(0.5, 0.999))
def test_wilson_is_that_of_scipy_and_holds_the_share(counts, confidence):
    right, n = counts
    found = wilson(right, n, confidence)
    expected = binomtest(right, n).proportion_ci(confidence, method="wilson")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found[0] <= right / n <= found[1] <= 1


@pytest.mark.parametrize(
    ("right", "n", "interval"),
    # Newcombe 1998 (Statistics in Medicine 17, 873-890), table II, method 10.
    [
        ((56, 48), (70, 80), (0.0524, 0.3339)),
        ((9, 3), (10, 10), (0.1705, 0.8090)),
        ((6, 2), (7, 7), (0.0582, 0.8062)),
        ((5, 0), (56, 29), (-0.0381, 0.1926)),
        ((10, 0), (10, 10), (0.6075, 1.0)),
    ],
)
def test_newcombe_s_published_examples(right, n, interval):
    assert difference(right, n, 0.95) == pytest.approx(interval, abs=5.1e-5)


def likelihood_score(gained, lost, n, gap):
    """Tango's statistic from the likelihood itself, maximised by search over the nuisance."""

    def minus_log(second):
        first = second + gap
        same = 1 - first - second
        parts = ((gained, first), (lost, second), (n - gained - lost, same))
        return -sum(count * math.log(max(share, 1e-300)) for count, share in parts if count)

    low, high = max(0.0, -gap), (1 - gap) / 2
    second = minimize_scalar(
        minus_log, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    ).x
    variance = n * (2 * second + gap - gap * gap)
    return (gained - lost - n * gap) / math.sqrt(variance)


@settings(deadline=None, max_examples=60)
@given(PAIRS, st.floats(-0.9, 0.9))
def test_tango_s_statistic_is_that_of_the_maximised_likelihood(pair, gap):
    gained, lost, n = pair
    if abs(gained - lost - n * gap) < 1e-6 * n or abs(gap) < 1e-3:
        return
    expected = likelihood_score(gained, lost, n, gap)
    assert paired_score(gained, lost, n, gap) == pytest.approx(expected, rel=2e-3, abs=2e-3)


@given(PAIRS)
def test_at_no_difference_it_is_mcnemar_s(pair):
    gained, lost, n = pair
    if gained + lost:
        expected = (gained - lost) / math.sqrt(gained + lost)
        assert paired_score(gained, lost, n, 0.0) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(PAIRS, st.sampled_from([0.8, 0.9, 0.95]))
def test_the_paired_interval_holds_the_estimate_and_mirrors(pair, confidence):
    gained, lost, n = pair
    low, high = paired_difference(gained, lost, n, confidence)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    mirrored = paired_difference(lost, gained, n, confidence)
    assert mirrored == pytest.approx((-high, -low), abs=1e-7)
    z = norm.ppf((1 + confidence) / 2)
    if low > -1 + 1e-6:
        assert paired_score(gained, lost, n, low) == pytest.approx(z, abs=1e-4)


def test_power_and_size_are_those_of_many_drawn_tests():
    n, margin, discordance, draws = 600, 0.03, 0.08, 4000
    rng = np.random.default_rng(0)

    def passes(gap):
        shares = [(discordance + gap) / 2, (discordance - gap) / 2, 1 - discordance]
        drawn = rng.multinomial(n, shares, size=draws)
        outcomes, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
        passed = [paired_score(int(a), int(b), n, -margin) > norm.ppf(0.95) for a, b in outcomes]
        return float(counts[passed].sum() / draws)

    assert passes(0.0) == pytest.approx(power(n, margin, discordance), abs=0.03)
    # As bad as the margin: wrongly passed at most as often as stated.
    assert passes(-margin) == pytest.approx(0.05, abs=0.015)


@given(st.floats(0.005, 0.1), st.floats(0.005, 0.5), st.floats(0.6, 0.99))
def test_needed_items_are_the_fewest(margin, discordance, wanted):
    n = needed(margin, discordance, wanted)
    assert power(n, margin, discordance) >= wanted - 1e-9
    assert n == 1 or power(n - 1, margin, discordance) < wanted


def test_no_discordance_is_certainty():
    assert power(10, 0.01, 0.0) == 1.0
