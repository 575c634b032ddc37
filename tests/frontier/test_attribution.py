"""The move split over switches: rounds, intervals, lost rounds, how many more are needed."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from upcurve.frontier.attribution import Attribution, Estimate, Lost, Value, attribute
from upcurve.frontier.shapley import Configuration

ALL = [frozenset(c) for k in range(4) for c in combinations("abc", k)]
EFFECTS = {"a": 0.5, "b": -0.1, "c": 0.02}


def throughput(on: Configuration) -> float:
    """Return planted effects, and 0.1 more where a and b are on together."""
    return 100 * math.exp(sum(EFFECTS[name] for name in on) + 0.1 * (on >= set("ab")))


def measured(rounds: int, noise: float, seed: int = 0) -> dict[int, dict[Configuration, Value]]:
    chance = random.Random(seed)
    return {
        index: {on: Value(throughput(on) * math.exp(chance.gauss(0, noise))) for on in ALL}
        for index in range(rounds)
    }


def full(values: dict[int, dict[Configuration, Value]], **more: object) -> Attribution:
    return attribute(values, "abc", interactivity=40, design="full", **more)  # type: ignore[arg-type]


def test_planted_effects_come_out_where_there_is_no_noise() -> None:
    found = full(measured(3, 0))
    assert [s.log.mean for s in found.shares] == pytest.approx([0.55, -0.05, 0.02])
    assert [s.added_alone.mean for s in found.shares] == pytest.approx([0.5, -0.1, 0.02])
    assert [s.taken_away.mean for s in found.shares] == pytest.approx([0.6, 0.0, 0.02], abs=1e-9)
    assert found.move.mean == pytest.approx(0.52)
    assert math.exp(found.baseline.mean) == pytest.approx(100)
    assert math.exp(found.full.mean) == pytest.approx(100 * math.exp(0.52))
    assert found.usd_move is None
    assert found.precise(1e-6)


@given(st.integers(1, 5), st.integers(0, 10))
def test_shares_sum_to_the_move_in_ratio_and_in_cost(rounds: int, seed: int) -> None:
    prices = {on: 2.0 if "c" in on else 1.5 for on in ALL}
    found = full(measured(rounds, 0.02, seed), prices=prices)
    assert math.fsum(s.log.mean for s in found.shares) == pytest.approx(found.move.mean, abs=1e-12)
    cost = math.fsum(s.usd.mean for s in found.shares)
    assert cost == pytest.approx(found.usd_move.mean, abs=1e-12)
    assert found.usd[1] - found.usd[0] == pytest.approx(cost, abs=1e-12)
    assert (found.move.half_width is None) == (rounds < 3)


def test_the_interval_is_that_of_a_t_test() -> None:
    values = [0.11, 0.13, 0.10, 0.16]
    found = Estimate.of(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.interval == pytest.approx((low, high))
    assert Estimate.of(values[:2]).interval is None
    assert Estimate.of(values[:1]).deviation is None


def test_the_rounds_needed_are_the_fewest_that_are_enough() -> None:
    found = Estimate.of([0.11, 0.13, 0.10, 0.16])
    count = found.rounds_for(0.01)

    def width(n: int) -> float:
        return stats.t.ppf(0.975, n - 1) * found.deviation / n**0.5

    assert width(count) <= 0.01 < width(count - 1)
    assert Estimate.of([1.0]).rounds_for(0.01) is None
    assert Estimate.of([1.0, 1.0]).rounds_for(0.01) == 3
    assert Estimate.of([1.0, 9.0]).rounds_for(1e-6) is None


def test_more_rounds_are_those_of_the_widest_share() -> None:
    found = full(measured(4, 0.02))
    assert not found.precise(0.005)
    assert found.more_rounds(0.005) == max(s.log.rounds_for(0.005) for s in found.shares) - 4
    assert found.more_rounds(1.0) == 0
    assert full(measured(1, 0.02)).more_rounds(0.01) is None


def test_a_lost_configuration_costs_the_round_and_leaves_the_ends_that_are_there() -> None:
    values = measured(4, 0.01)
    del values[1][frozenset("ab")]
    values[2][frozenset("a")] = Value(None, "its frontier ends at 35 tok/s/user")
    found = full(values)
    assert found.rounds == (0, 3)
    assert found.lost == (
        Lost(1, frozenset("ab"), "not measured"),
        Lost(2, frozenset("a"), "its frontier ends at 35 tok/s/user"),
    )
    a, _, c = found.shares
    assert (a.log.rounds, a.added_alone.rounds, a.taken_away.rounds) == (2, 3, 4)
    assert (c.added_alone.rounds, c.taken_away.rounds) == (4, 3)


def test_without_a_whole_round_there_are_no_shares() -> None:
    values = measured(3, 0.01)
    for each in values.values():
        each[frozenset()] = Value(None, "its frontier ends at 35 tok/s/user")
    found = full(values)
    assert (found.shares, found.move, found.baseline) == ((), None, None)
    assert len(found.lost) == 3
    assert not found.precise(10)
    assert found.more_rounds(0.1) is None


def test_each_round_is_split_over_its_own_orders() -> None:
    orders = [[("a", "b", "c"), ("c", "b", "a")], [("b", "a", "c"), ("c", "a", "b")]]
    found = attribute(
        measured(2, 0), "abc", interactivity=40, design="shapley", orders=lambda r: orders[r]
    )
    assert [s.log.mean for s in found.shares] == pytest.approx([0.55, -0.05, 0.02])


def test_the_design_one_has_a_bar_for_what_is_left() -> None:
    found = attribute(measured(3, 0), "abc", interactivity=40, design="one")
    assert found.interaction.log.mean == pytest.approx(0, abs=1e-12)
    assert math.fsum(bar.log.mean for bar in found.bars) == pytest.approx(found.move.mean)
    assert found.interaction.added_alone is None


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    hits = [
        abs(share.log.mean - truth) <= share.log.half_width
        for seed in range(300)
        for share, truth in zip(
            full(measured(4, 0.02, seed)).shares, (0.55, -0.05, 0.02), strict=True
        )
    ]
    # 900 intervals, those of one seed dependent: 0.95 +- three binomial errors of 300.
    assert 0.912 <= sum(hits) / len(hits) <= 0.988
