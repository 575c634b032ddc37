"""Shares against the definition by permutations, and what they must satisfy."""

from __future__ import annotations

import math
from itertools import combinations, permutations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.frontier.shapley import (
    Configuration,
    ends,
    from_ends,
    needed,
    over_orders,
    shapley,
)

NAMES = "abcd"


def subsets(names: str) -> list[Configuration]:
    return [frozenset(c) for k in range(len(names) + 1) for c in combinations(names, k)]


@st.composite
def games(draw: st.DrawFn) -> tuple[str, dict[Configuration, float]]:
    names = NAMES[: draw(st.integers(1, 4))]
    return names, {each: draw(st.floats(-3, 3)) for each in subsets(names)}


def by_definition(game: dict[Configuration, float], names: str) -> list[float]:
    """Return the mean over all orders of what a switch adds to those before it."""
    return [
        mean(
            game[frozenset(order[: order.index(name) + 1])]
            - game[frozenset(order[: order.index(name)])]
            for order in permutations(names)
        )
        for name in names
    ]


@given(games())
def test_shapley_values_are_the_mean_over_all_orders_and_sum_to_the_move(drawn) -> None:
    names, game = drawn
    shares = shapley(game, names)
    assert shares == pytest.approx(by_definition(game, names), abs=1e-12)
    assert shares == pytest.approx(over_orders(game, names, list(permutations(names))), abs=1e-12)
    assert math.fsum(shares) == pytest.approx(game[frozenset(names)] - game[frozenset()], abs=1e-12)


@given(games(), st.randoms(use_true_random=False))
def test_shares_over_any_orders_and_from_ends_sum_to_the_move(drawn, random) -> None:
    names, game = drawn
    orders = [tuple(random.sample(names, len(names))) for _ in range(3)]
    move = game[frozenset(names)] - game[frozenset()]
    assert math.fsum(over_orders(game, names, orders)) == pytest.approx(move, abs=1e-12)
    assert math.fsum(from_ends(game, names)) == pytest.approx(move, abs=1e-12)


@given(
    st.lists(st.floats(-1, 1), min_size=4, max_size=4),
    st.lists(st.floats(-1, 1), min_size=6, max_size=6),
    st.permutations(NAMES),
)
def test_interactions_of_pairs_are_shared_exactly_by_two_orders_and_by_ends(
    alone: list[float], together: list[float], order: list[str]
) -> None:
    effects = dict(zip(NAMES, alone, strict=True))
    pairs = dict(zip(combinations(NAMES, 2), together, strict=True))
    game = {
        on: sum(effects[name] for name in on) + sum(v for k, v in pairs.items() if on >= set(k))
        for on in subsets(NAMES)
    }
    # Each pair's interaction belongs to both alike.
    truth = [effects[n] + sum(v for pair, v in pairs.items() if n in pair) / 2 for n in NAMES]
    two = [tuple(order), tuple(reversed(order))]
    assert shapley(game, NAMES) == pytest.approx(truth, abs=1e-12)
    assert over_orders(game, NAMES, two) == pytest.approx(truth, abs=1e-12)
    assert from_ends(game, NAMES) == pytest.approx([*truth, 0], abs=1e-12)


def test_what_only_three_do_together_is_left_over_from_ends() -> None:
    game = {on: float(len(on) == 3) for on in subsets("abc")}
    assert from_ends(game, "abc") == pytest.approx([0.5, 0.5, 0.5, -0.5])
    assert shapley(game, "abc") == pytest.approx([1 / 3] * 3)


def test_each_design_asks_for_what_its_shares_rest_on() -> None:
    assert set(needed("abc", "full")) == set(subsets("abc"))
    assert needed("ab", "shapley", [("a", "b")]) == [frozenset(), frozenset("a"), frozenset("ab")]
    assert needed(NAMES, "one") == sorted(needed(NAMES, "one"), key=len)
    assert len(needed(NAMES, "one")) == 2 * 4 + 2
    assert ends("a") == [frozenset(), frozenset("a")]
    assert len(ends("ab")) == 4
