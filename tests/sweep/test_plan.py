"""The order of launches, and what a resumed sweep leaves out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.records.examples import point_record, run_record
from tests.sweep.examples import recipe
from upcurve.records.queries import OperatingPoint
from upcurve.records.store import Store
from upcurve.sweep.facts import Machine, run_records
from upcurve.sweep.plan import Launch, plan, stored_points
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
        [tp4],
        {(4, 1, 1, 4, 0, 2, 8, 4, 0), (4, 1, 1, 4, 0, 1, 8, 4, 1), (8, 1, 1, 8, 0, 1, 8, 4, 0)},
    )
    assert [(each.concurrencies, each.skipped) for each in found] == [
        ((1, 4), (2,)),
        ((2, 4), (1,)),
    ]


def test_a_point_of_another_workload_or_layout_does_not_count() -> None:
    other = {
        (1, 1, 1, 1, 0, 1, 9, 4, 0),
        (1, 1, 1, 1, 0, 1, 8, 5, 0),
        (2, 1, 1, 1, 0, 1, 8, 4, 0),
        (1, 2, 1, 1, 0, 1, 8, 4, 0),
        (1, 1, 2, 1, 0, 1, 8, 4, 0),
        (1, 1, 1, 2, 0, 1, 8, 4, 0),
        (1, 1, 1, 1, 1, 1, 8, 4, 0),
    }
    assert [each.concurrencies for each in launches([recipe()], other)] == [(1, 2), (1, 2)]


def test_a_sweep_that_goes_on_counts_points_of_its_own_layout_only(tmp_path: Path) -> None:
    own = recipe(tp=2, ep=2)
    [record] = run_records([own], NOWHERE)
    with Store.open(tmp_path) as store:
        run = store.begin_run(run_record(fingerprint=record.fingerprint, series=own.series))
        for ep, tput in ((1, 100.0), (2, 200.0)):
            point = point_record(isl=8, osl=4, ep=ep, tput_per_gpu=tput)
            store.add_point(run, point)
        store.end_run(run, "complete")
        [found] = stored_points(own, record, store)
    assert (found.tput_per_gpu, found.place.layout) == (200.0, "TP2 EP2")
