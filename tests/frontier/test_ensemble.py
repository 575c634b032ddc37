from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.frontier.area import area_ratio
from upcurve.frontier.ensemble import read_frontiers
from upcurve.frontier.interpolation import RULES, Curve
from upcurve.frontier.pareto import frontier
from upcurve.frontier.point import Point

points = st.lists(
    st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=5, max_size=5, unique=True
)


@settings(max_examples=60)
@given(st.lists(points, min_size=1, max_size=4), st.sampled_from(list(RULES)))
def test_many_frontiers_read_as_one_at_a_time(draws, rule):
    x, y = np.array(draws, dtype=float).transpose(2, 0, 1)
    targets = np.broadcast_to([1.0, 7.5, 20, 33.3, 60], (len(draws), 5))
    found = read_frontiers(x, y, targets, rule)
    for own, values in zip(draws, found, strict=True):
        knots = frontier([Point(a, b, 1, 1, 1) for a, b in own])
        curve = Curve.through(
            [p.interactivity for p in knots], [p.tput_per_gpu for p in knots], rule
        )
        for target, value in zip(targets[0], values, strict=True):
            reading = curve.at(target)
            expected = {"unreachable": -np.inf, "below_range": np.inf}.get(
                reading.status, reading.value
            )
            assert value == pytest.approx(expected, rel=1e-9)


OLD = [Point(10, 1000, 8, 8, 64), Point(20, 600, 8, 8, 16), Point(30, 400, 8, 8, 8)]
NEW = [Point(15, 2000, 4, 4, 64), Point(25, 1500, 4, 4, 16), Point(60, 300, 4, 4, 4)]


@pytest.mark.parametrize("rule", list(RULES))
def test_the_area_ratio_is_scipys(rule):
    def area(knots):
        curve = Curve.through(
            [p.interactivity for p in knots], [p.tput_per_gpu for p in knots], rule
        )
        inner = [p.interactivity for p in (*OLD, *NEW) if 15 < p.interactivity < 30]
        return scipy.integrate.quad(lambda x: curve.sample([x])[0], 15, 30, points=inner)[0]

    found = area_ratio(NEW, OLD, rule)
    assert found.band == (15, 30)
    assert found.ratio == pytest.approx(area(NEW) / area(OLD), rel=1e-12)
    assert found.interval is None


def test_frontiers_that_share_no_band_have_no_area_ratio():
    far = [Point(90, 5, 1, 1, 1), Point(99, 4, 1, 1, 1)]
    assert area_ratio(far, OLD, "published") is None
    assert area_ratio(OLD[:1], OLD, "published") is None
