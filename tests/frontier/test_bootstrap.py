from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from upcurve.frontier.bootstrap import draw_ratios, draw_series, interval
from upcurve.frontier.ensemble import area_ratios, read_frontiers
from upcurve.frontier.point import Facts, Point

X, Y = np.array([80.0, 60, 42, 28, 18, 11]), np.array([300.0, 560, 950, 1500, 2100, 2600])


def group(logs, *, first=0, x=40.0, y=1000.0, noise=None):
    facts = Facts(request_noise=noise)
    return [
        Point(x * math.exp(a), y * math.exp(b), 1, 1, 8, first + r, facts=facts)
        for r, (a, b) in enumerate(logs)
    ]


def test_one_point_has_scipys_t_interval():
    logs = np.random.default_rng(4).normal(0, 0.02, (5, 2))
    found = draw_series({"a": [group(logs)]}, "a", draws=40_000)["a"]
    for axis, values, scale in ((0, found.x[:, 0], 40), (1, found.y[:, 0], 1000)):
        expected = scipy.stats.ttest_1samp(logs[:, axis], 0).confidence_interval(0.95)
        low, high = interval(values, float(np.median(values)))
        assert np.log(low / scale) == pytest.approx(expected.low, abs=0.0015)
        assert np.log(high / scale) == pytest.approx(expected.high, abs=0.0015)


def test_axes_keep_the_correlation_of_their_repeats():
    chance = np.random.default_rng(1)
    first = chance.normal(0, 0.02, 8)
    logs = np.stack([first, 0.5 * first + chance.normal(0, 0.002, 8)], axis=1)
    found = draw_series({"a": [group(logs)]}, "a")["a"]
    drawn = np.corrcoef(np.log(found.x[:, 0]), np.log(found.y[:, 0]))[0, 1]
    assert drawn == pytest.approx(np.corrcoef(logs.T)[0, 1], abs=0.01)


def test_what_a_round_shares_cancels_in_the_ratio():
    hours = np.random.default_rng(2).normal(0, 0.05, (5, 2))
    series = {"a": [group(hours)], "b": [group(hours, y=1300)]}
    found = draw_series(series, "a")
    ratio = found["b"].y[:, 0] / found["a"].y[:, 0]
    assert ratio == pytest.approx(np.full(len(ratio), 1.3), rel=1e-9)
    assert np.ptp(found["a"].y) > 50


def test_rounds_of_other_numbers_are_taken_by_their_order():
    chance = np.random.default_rng(3)
    logs = chance.normal(0, 0.02, (2, 3, 2))
    near = draw_series({"a": [group(logs[0])], "b": [group(logs[1])]}, "a")["b"]
    far = draw_series({"a": [group(logs[0])], "b": [group(logs[1], first=9)]}, "a")["b"]
    assert (near.y == far.y).all()


def test_repeats_that_agree_by_luck_are_no_surer_than_their_requests():
    found = draw_series({"a": [group(np.zeros((4, 2)), noise=(0.0004, 0.0016))]}, "a")["a"]
    # A repeat varies by 2 % and 4 %, a mean of four by half of that.
    assert np.log(found.x).std() == pytest.approx(0.01, rel=0.05)
    assert np.log(found.y).std() == pytest.approx(0.02, rel=0.05)


def test_requests_change_nothing_where_repeats_say_more():
    logs = np.random.default_rng(5).normal(0, 0.05, (5, 2))
    with_noise = draw_series({"a": [group(logs, noise=(1e-6, 1e-6))]}, "a")["a"]
    without = draw_series({"a": [group(logs)]}, "a")["a"]
    assert (with_noise.y == without.y).all()


def test_points_of_few_repeats_stay_where_they_are():
    pair = group([(0, 0), (0.1, 0.1)])
    assert draw_series({"a": [pair]}, "a") == {}
    found = draw_series({"a": [pair, group([(0, 0), (0.1, 0.1), (0.2, 0)])]}, "a")["a"]
    assert found.varied == (False, True)
    assert np.ptp(found.x[:, 0]) == 0


def test_intervals_hold_the_figure_and_are_absent_where_draws_fail():
    values = np.linspace(1, 2, 1000)
    assert interval(values, 1.5) == pytest.approx((1.025, 1.975), abs=0.002)
    assert interval(values, 2.5) == pytest.approx((1.025, 2.5), abs=0.002)
    values[:25] = -np.inf
    low, high = interval(values, 1.5)
    assert (round(low, 3), round(high, 3)) == (1.025, 1.975)
    values[25] = np.nan
    assert interval(values, 1.5) is None


def test_ratios_of_draws_that_do_not_reach():
    inf, nan = np.inf, np.nan
    own, base = np.array([2, 2, -inf, -inf, 2, inf]), np.array([1, -inf, 1, -inf, inf, 1])
    np.testing.assert_array_equal(draw_ratios(own, base), [2, inf, -inf, nan, nan, nan])


@pytest.mark.parametrize(("repeats", "hour"), [(3, 0.0), (5, 0.02)])
def test_intervals_hold_the_truth_in_95_of_100_experiments(repeats, hour):
    """Points, curve, ratios and areas; benchmarks/interval_coverage.py has the whole table."""
    chance = np.random.default_rng(6)
    targets = np.array([[15.0, 25, 35, 50, 70]])
    truth = read_frontiers(X[None], Y[None], targets, "published")[0]
    experiments, draws = 250, 400
    held = np.zeros((experiments, 12))
    for number in range(experiments):
        hours = chance.normal(0, hour, (repeats, 2))
        series = {}
        for name, factor in (("a", 1.0), ("b", 1.3)):
            launches = hours + chance.normal(0, 0.01, (repeats, 2))
            series[name] = [
                group(launches + chance.normal(0, 0.01, (repeats, 2)), x=x, y=y * factor)
                for x, y in zip(X, Y, strict=True)
            ]
        drawn = draw_series(series, "a", draws=draws, seed=number)
        a, b = drawn["a"], drawn["b"]
        at = np.broadcast_to(targets, (draws, 5))
        low, high = (read_frontiers(each.x, each.y, at, "published") for each in (a, b))
        areas, _, _ = area_ratios((b.x, b.y), (a.x, a.y), "published")
        ratios = draw_ratios(high, low)
        values = [a.y[:, 2], *low.T, *ratios.T, areas]
        truths = [Y[2], *truth, *[1.3] * 6]
        for place, (each, true) in enumerate(zip(values, truths, strict=True)):
            found = interval(each, float(np.median(each)))
            held[number, place] = found is not None and found[0] <= true <= found[1]
    # Each of twelve shares has a standard error of 0.0138; four of them either way.
    assert held.mean(axis=0) == pytest.approx(np.full(12, 0.95), abs=0.055)
    assert held.mean() == pytest.approx(0.95, abs=0.025)
