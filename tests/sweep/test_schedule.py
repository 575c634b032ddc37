"""Which configurations a round measures, in an order that the seed gives."""

from __future__ import annotations

import pytest

from upcurve.errors import InputError
from upcurve.frontier.shapley import ends, needed
from upcurve.sweep.schedule import Schedule

SIX = tuple("abcdef")


def test_few_switches_are_measured_in_every_configuration_many_in_some_orders() -> None:
    assert Schedule.choose("abcd", None).design == "full"
    assert Schedule.choose("abcde", None).design == "shapley"
    with pytest.raises(InputError, match="2,048 configurations; give --design shapley or one"):
        Schedule.choose("abcdefghijk", "full")


def test_a_round_has_each_configuration_of_the_design_and_of_the_ends_once() -> None:
    for design in ("full", "shapley", "one"):
        schedule = Schedule(SIX, design, seed=3)
        for index in range(3):
            found = schedule.configurations(index)
            wanted = needed(SIX, design, schedule.orders(index))
            assert len(found) == len(set(found))
            assert set(found) == set(wanted) | set(ends(SIX))
    # n = 6: both ends and one pair of orders, 4 n - 4.
    assert len(Schedule(SIX, "shapley").configurations(0)) == 20


def test_the_order_is_the_seeds_and_differs_from_round_to_round() -> None:
    schedule, same = Schedule(SIX, "one", seed=1), Schedule(SIX, "one", seed=1)
    rounds = [schedule.configurations(index) for index in range(3)]
    assert rounds == [same.configurations(index) for index in range(3)]
    assert rounds[0] != rounds[1]
    assert rounds[0] != Schedule(SIX, "one", seed=2).configurations(0)


def test_over_many_rounds_no_configuration_has_a_place_of_its_own() -> None:
    schedule = Schedule(("a", "b"), "full")
    first = [schedule.configurations(index)[0] for index in range(400)]
    # 100 each are expected; 4.5 binomial deviations of 8.7 on either side.
    assert all(61 <= first.count(on) <= 139 for on in schedule.configurations(0))


def test_orders_come_with_their_reverse_and_anew_in_each_round() -> None:
    schedule = Schedule(SIX, "shapley", pairs=2)
    one, two = schedule.orders(0), schedule.orders(1)
    assert len(one) == 4
    assert one[1] == tuple(reversed(one[0]))
    assert one != two
    assert all(sorted(order) == list(SIX) for order in one)
