from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.load.statistics import LOW_MINIMUM_SAMPLES, statistics


@pytest.mark.parametrize(
    ("count", "given"),
    [(1, "p50"), (63, "p50"), (64, "p50 p90"), (661, "p50 p90"), (662, "p50 p90 p99"),
     (6635, "p50 p90 p99"), (6636, "p50 p90 p99 p99.9")],
)  # fmt: skip
def test_a_percentile_is_given_only_where_the_sample_carries_it(count, given):
    found = statistics(numpy.arange(count, dtype=float))
    names = ("p50", "p90", "p99", "p99.9")
    assert " ".join(key for key in names if found[key] is not None) == given
    assert found["mean"] == pytest.approx((count - 1) / 2)


@given(st.integers(0, 2**32))
def test_low_percentiles_mirror_high_ones(seed):
    values = numpy.random.default_rng(seed).gamma(1, 100, 700)
    slow = statistics(values)
    pace = statistics(-values, LOW_MINIMUM_SAMPLES)
    assert pace["p1"] == pytest.approx(-slow["p99"])
    assert pace["p10"] == pytest.approx(-slow["p90"])


def test_nothing_has_no_statistics():
    assert set(statistics([]).values()) == {None, 0}
