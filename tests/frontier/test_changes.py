from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from upcurve.errors import InputError
from upcurve.frontier.changes import FAMILY_ERROR, MINIMUM_VALUES, find_steps


def history(*levels, noise=0.006, seed=0):
    """Return values around levels, each given as (log level, count)."""
    logs = np.concatenate([np.full(count, level) for level, count in levels])
    return list(np.exp(logs + np.random.default_rng(seed).normal(0, noise, len(logs))))


def test_a_planted_step_is_found_where_it_is_and_as_large_as_it_is():
    steps = find_steps(history((7, 15), (7 + math.log(0.95), 12)))
    (change,) = steps.change_points
    assert change.index == 15
    assert change.interval[0] < 0.95 < change.interval[1]
    assert change.after / change.before == pytest.approx(change.ratio)
    assert steps.noise == pytest.approx(0.006, rel=0.4)


def test_one_border_is_students_t_test_of_both_sides():
    values = history((7, 12), (7.04, 9), seed=0)
    steps = find_steps(values)
    (change,) = steps.change_points
    assert steps.strays == ()
    before, after = np.log(values[:12]), np.log(values[12:])
    test = stats.ttest_ind(after, before)
    assert change.p_value == pytest.approx(min(1, test.pvalue * (21 - 3)))
    interval = test.confidence_interval(0.95)
    assert change.interval == pytest.approx((math.exp(interval.low), math.exp(interval.high)))


def test_borders_are_the_least_squares_of_an_exhaustive_search():
    values = history((0, 6), (0.05, 5), (0.02, 7), seed=8)
    found = [each.index for each in find_steps(values).change_points]
    logs = np.log(values)

    def error(borders):
        return sum(len(part) * part.var() for part in np.split(logs, borders))

    places = range(2, len(logs) - 1)
    best = min(
        (pair for pair in itertools.combinations(places, 2) if pair[1] - pair[0] >= 2), key=error
    )
    assert found == list(best) == [6, 11]


def test_without_a_step_a_whole_history_seldom_has_one():
    draws = np.exp(np.random.default_rng(11).normal(0, 0.023, (1000, 30)))
    false = sum(bool(find_steps(list(row)).change_points) for row in draws)
    # The binomial 99.9 % bound around 10 of 1,000.
    assert false <= stats.binom(1000, FAMILY_ERROR).ppf(0.999)


def test_the_interval_of_a_clear_step_covers_the_truth_as_often_as_it_says():
    covered = []
    for seed in range(400):
        steps = find_steps(history((0, 12), (math.log(0.95), 12), seed=seed))
        change = min(steps.change_points, key=lambda each: abs(each.index - 12))
        covered.append(change.interval[0] <= 0.95 <= change.interval[1])
    assert 0.92 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize("size", [0.2, -0.2])
def test_one_bad_run_is_a_stray_and_no_level(size):
    values = history((7, 20))
    values[9] *= 1 + size
    steps = find_steps(values)
    assert steps.change_points == ()
    assert steps.strays == (9,)
    assert steps.noise < 0.01


def test_positions_count_strays_too():
    values = history((7, 12), (7.1, 10))
    values[4] *= 0.8
    steps = find_steps(values)
    assert [each.index for each in steps.change_points] == [12]


def test_a_newest_build_that_stands_off_is_told_but_is_no_level():
    values = history((7, 15))
    calm = find_steps(values).newest_alone
    assert calm.p_value > FAMILY_ERROR
    values[-1] *= 0.9
    steps = find_steps(values)
    assert steps.change_points == ()
    assert steps.newest_alone.ratio == pytest.approx(0.9, abs=0.02)
    assert steps.newest_alone.p_value < FAMILY_ERROR
    twice = find_steps([*values, values[-1]])
    assert [each.index for each in twice.change_points] == [14]


def test_one_build_after_a_large_step_is_no_level_of_half_its_size():
    waiting = 0
    for seed in range(30):
        values = [*history((7, 40), seed=seed), history((7 - 0.05, 1), seed=seed + 100)[0]]
        steps = find_steps(values)
        assert 39 not in [each.index for each in steps.change_points]
        waiting += 40 in steps.strays and steps.newest_alone.p_value < FAMILY_ERROR
    assert waiting >= 28


def test_equal_values_have_no_step_and_exact_steps_are_found():
    assert find_steps([5.0] * 10).change_points == ()
    (change,) = find_steps([5.0] * 6 + [4.0] * 6).change_points
    assert (change.index, change.ratio) == (6, pytest.approx(0.8))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0.5, 2), min_size=MINIMUM_VALUES, max_size=40),
    st.floats(1e-3, 1e6),
)
def test_the_unit_does_not_matter(values, unit):
    one, other = find_steps(values), find_steps([value * unit for value in values])
    assert other.noise == pytest.approx(one.noise, rel=1e-6)
    clear = [each for each in one.change_points if each.p_value < FAMILY_ERROR / 2]
    indices = {each.index for each in other.change_points}
    assert {each.index for each in clear} <= indices


def test_few_values_are_not_judged_and_bad_ones_refused():
    assert find_steps([1.0] * (MINIMUM_VALUES - 1)) is None
    for bad in (0, -1, math.nan, math.inf):
        with pytest.raises(InputError, match="history"):
            find_steps([1.0] * 10 + [bad])
