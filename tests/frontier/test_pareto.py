from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from upcurve.frontier.pareto import frontier, non_dominated
from upcurve.frontier.point import Point

# Few distinct values, so that ties on either axis and exact duplicates are common.
coarse = st.integers(1, 6).map(float)
points_strategy = st.lists(
    st.builds(
        Point,
        interactivity=coarse,
        tput_per_gpu=coarse,
        tp=st.sampled_from([1, 2, 8]),
        gpus=st.just(8),
        concurrency=st.sampled_from([1, 4, 64]),
    ),
    max_size=25,
)


def dominates(a: Point, b: Point) -> bool:
    ge = a.interactivity >= b.interactivity and a.tput_per_gpu >= b.tput_per_gpu
    return ge and (a.interactivity, a.tput_per_gpu) != (b.interactivity, b.tput_per_gpu)


@given(points_strategy)
def test_it_is_the_set_that_the_definition_names(points):
    expected = {
        (p.interactivity, p.tput_per_gpu)
        for p in points
        if not any(dominates(q, p) for q in points)
    }
    found = [(p.interactivity, p.tput_per_gpu) for p in frontier(points)]
    assert found == sorted(expected)


@given(points_strategy, st.randoms(use_true_random=False))
def test_the_order_of_the_points_changes_nothing(points, rng):
    shuffled = list(points)
    rng.shuffle(shuffled)
    assert frontier(shuffled) == frontier(points)


@given(points_strategy.filter(bool), st.integers(0, 5), st.integers(0, 5))
def test_dominated_points_change_nothing(points, dx, dy):
    extra = [
        Point(p.interactivity - dx, p.tput_per_gpu - dy, 1, 1, 1)
        for p in frontier(points)
        if dx + dy > 0
    ]
    assert frontier([*extra, *points]) == frontier(points)


def test_of_equal_x_the_higher_y_and_of_equal_y_the_higher_x():
    points = [Point(10, 5, 1, 1, 1), Point(10, 7, 1, 1, 2), Point(12, 7, 1, 1, 3)]
    assert frontier(points) == [points[2]]


def test_of_exact_duplicates_the_smallest_setting_stays():
    wide, narrow = Point(10, 5, 8, 8, 4), Point(10, 5, 2, 2, 4)
    assert frontier([wide, narrow]) == frontier([narrow, wide]) == [narrow]


def test_nothing_has_no_frontier():
    assert frontier([]) == []


def test_a_hundred_thousand_points_agree_with_a_plain_scan():
    rng = np.random.default_rng(7)
    # A quarter circle with noise has hundreds of frontier points, a square only a dozen.
    angle = rng.uniform(0, np.pi / 2, 100_000)
    radius = rng.uniform(0.999, 1, 100_000)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    best, expected = -1.0, []
    for index in sorted(range(len(x)), key=lambda i: (-x[i], -y[i])):
        if y[index] > best:
            best = y[index]
            expected.append(index)
    found = non_dominated(x, y)
    assert len(found) > 300
    assert found.tolist() == expected[::-1]


def test_ties_are_broken_in_the_order_given():
    x = y = np.ones(4)
    first, second = np.array([2, 1, 1, 2]), np.array([0, 9, 3, 0])
    assert non_dominated(x, y, first, second).tolist() == [2]
    order = list(range(4))
    random.Random(1).shuffle(order)
    assert order[non_dominated(x, y, first[order], second[order])[0]] == 2
