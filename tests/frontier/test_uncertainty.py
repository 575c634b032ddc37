from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from upcurve.frontier.uncertainty import ratio_spread, student_interval


@given(st.lists(st.floats(1, 1e4), min_size=3, max_size=9))
def test_it_is_scipys_t_interval_of_the_logs(throughputs):
    logs = np.log(throughputs)
    if logs.std() < 1e-9:
        return
    low, high = scipy.stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert student_interval(throughputs) == pytest.approx((np.exp(low), np.exp(high)), rel=1e-9)


def test_two_rounds_have_no_interval():
    assert student_interval([10, 11]) is None


def test_it_covers_the_truth_in_95_of_100_experiments():
    rng = np.random.default_rng(3)
    samples = 1000 * np.exp(rng.normal(0, 0.02, (4000, 3)))
    intervals = [student_interval(sample) for sample in samples.tolist()]
    covered = np.mean([low <= 1000 <= high for low, high in intervals])
    # Three standard errors of a share of 0.95 in 4000 experiments are 0.0103.
    assert covered == pytest.approx(0.95, abs=0.0104)


def test_ratios_are_paired_by_round():
    spread = ratio_spread([20, 44, 63], [10, 20, 30])
    assert (spread.rounds, spread.minimum, spread.median, spread.maximum) == (3, 2.0, 2.1, 2.2)
