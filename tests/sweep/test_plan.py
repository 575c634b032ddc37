"""The order of launches, and what a resumed sweep leaves out."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.sweep.examples import recipe
from upcurve.records.queries import OperatingPoint
from upcurve.sweep.facts import Machine, run_records
from upcurve.sweep.plan import Launch, plan
from upcurve.sweep.recipe import Recipe

NOWHERE = Machine(host={}, gpus=[], software={})


def launches(recipes: list[Recipe], *done: set[OperatingPoint]) -> list[Launch]:
    return plan(recipes, run_records(recipes, NOWHERE), done or [set() for _ in recipes])


def order(of: list[Launch]) -> list[tuple[int, str]]:
    return [(launch.round, launch.recipe.name) for launch in of]


def test_recipes_take_turns_and_the_order_alternates() -> None:
    found = launches([recipe(name="a", repeats=3), recipe(name="b", repeats=3)])
    assert order(found) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


def test_a_recipe_with_fewer_repeats_takes_part_in_the_first_rounds() -> None:
    found = launches([recipe(name="a", repeats=1), recipe(name="b", repeats=3)])
    assert order(found) == [(0, "a"), (0, "b"), (1, "b"), (2, "b")]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_every_recipe_is_launched_once_a_round(repeats: list[int]) -> None:
    recipes = [recipe(name=str(index), repeats=count) for index, count in enumerate(repeats)]
    found = Counter(order(launches(recipes)))
    assert set(found.values()) == {1}
    assert set(found) == {(r, str(i)) for i, count in enumerate(repeats) for r in range(count)}


def test_points_that_are_stored_are_left_out() -> None:
    tp4 = recipe(tp=4, concurrency=[1, 2, 4])
    found = launches(
        [tp4], {(4, 1, 1, 4, 2, 8, 4, 0), (4, 1, 1, 4, 1, 8, 4, 1), (8, 1, 1, 8, 1, 8, 4, 0)}
    )
    assert [(each.concurrencies, each.skipped) for each in found] == [
        ((1, 4), (2,)),
        ((2, 4), (1,)),
    ]


def test_a_point_of_another_workload_or_layout_does_not_count() -> None:
    other = {
        (1, 1, 1, 1, 1, 9, 4, 0),
        (1, 1, 1, 1, 1, 8, 5, 0),
        (2, 1, 1, 1, 1, 8, 4, 0),
        (1, 2, 1, 1, 1, 8, 4, 0),
        (1, 1, 2, 1, 1, 8, 4, 0),
        (1, 1, 1, 2, 1, 8, 4, 0),
    }
    assert [each.concurrencies for each in launches([recipe()], other)] == [(1, 2), (1, 2)]
