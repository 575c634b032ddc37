from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upcurve.frontier.point import Point
from upcurve.frontier.repeats import split_repeats


def test_repeats_become_the_median_of_each_axis():
    points = [Point(10, 3, 2, 4, 8, 0), Point(12, 1, 2, 4, 8, 1), Point(11, 9, 2, 4, 8, 2)]
    assert split_repeats(points).operating_points == [Point(11, 3, 2, 4, 8)]


def test_settings_that_differ_are_no_repeats():
    points = [Point(10, 3, 2, 4, 8), Point(12, 1, 1, 4, 8, 1), Point(11, 9, 2, 8, 8, 2)]
    assert split_repeats(points).operating_points == points


def test_layouts_of_as_many_gpus_are_no_repeats():
    layouts = [{}, {"ep": 2}, {"dp": 2}, {"prefill_gpus": 1, "decode_gpus": 1}]
    points = [
        Point(10 + repeat, 3 - repeat, 1, 2, 8, repeat, **layout)
        for layout in layouts
        for repeat in range(3)
    ]
    found = split_repeats(points)
    assert found.operating_points == [Point(11, 2, 1, 2, 8, **layout) for layout in layouts]
    assert [len(found.rounds[each]) for each in range(3)] == [4, 4, 4]
    assert [point.place.layout for point in found.operating_points] == [
        *("TP1 on 2 GPUs", "TP1 EP2 on 2 GPUs", "TP1 DP2", "TP1 on 1 + 1 GPUs"),
    ]


def test_one_index_twice_is_two_operating_points():
    points = [Point(10, 3, 8, 8, 8, 0), Point(12, 1, 8, 8, 8, 0), Point(12, 1, 8, 8, 8, 1)]
    found = split_repeats(points)
    assert found.operating_points == points
    assert found.rounds == {}


def test_a_round_measured_every_operating_point():
    whole = [Point(10 * c, 10 / c, 1, 1, c, r) for c in (1, 2) for r in (0, 1, 2)]
    half = [Point(10, 10, 1, 1, 1, 3)]
    rounds = split_repeats([*half, *whole]).rounds
    assert sorted(rounds) == [0, 1, 2]
    assert rounds[1] == [Point(10, 10, 1, 1, 1, 1), Point(20, 5, 1, 1, 2, 1)]


def test_one_measurement_has_no_rounds():
    assert split_repeats([Point(10, 10, 1, 1, 1), Point(20, 5, 1, 1, 2)]).rounds == {}
    assert split_repeats([]).operating_points == []


@given(st.permutations([Point(c + r / 10, 9 - r, 1, 1, c, r) for c in (1, 2) for r in range(4)]))
def test_the_order_of_the_points_changes_nothing(points):
    found = split_repeats(points)
    assert {(p.interactivity, p.tput_per_gpu, p.concurrency) for p in found.operating_points} == {
        (1.15, 7.5, 1),
        (2.1500000000000004, 7.5, 2),
    }
    assert [len(found.rounds[r]) for r in range(4)] == [2, 2, 2, 2]
