"""Series on other axes: against the comparison's own curve, and against mirror images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.frontier.axes import AxisFit
from upcurve.frontier.bootstrap import interval, intervals
from upcurve.frontier.comparison import compare
from upcurve.frontier.interpolation import RULES
from upcurve.frontier.point import Point

POSITIVE = st.floats(1, 1e4, allow_nan=False)


def points(x: list[float], y: list[float], repeats: int = 1, noise: float = 0) -> list[Point]:
    chance = np.random.default_rng(1)
    return [
        Point(
            a * float(np.exp(noise * chance.standard_normal())),
            b * float(np.exp(noise * chance.standard_normal())),
            tp=1,
            gpus=1,
            concurrency=place,
            repeat=repeat,
        )
        for place, (a, b) in enumerate(zip(x, y, strict=True))
        for repeat in range(repeats)
    ]


@given(
    values=st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=12),
    rule=st.sampled_from(list(RULES)),
)
def test_rising_axes_are_the_comparison_and_falling_ones_its_mirror(
    values: list[tuple[float, float]], rule: str
) -> None:
    own = points([x for x, _ in values], [y for _, y in values])
    fit = AxisFit.of(own, rising=True, rule=rule)
    series = compare(
        {"a": own}, baseline="a", targets=[1.0], usd_per_gpu_hour={}, rule=rule
    ).series[0]
    assert [each.point for each in fit.frontier] == list(series.frontier)
    assert len(fit.frontier) + len(fit.dominated) == len(own)
    x = fit.positions(20)
    np.testing.assert_array_equal(fit.sample(x), series.curve.sample(x))
    # The same points at 2e4 - x, where low is good, are the mirror image.
    turned = points([2e4 - x for x, _ in values], [y for _, y in values])
    mirror = AxisFit.of(turned, rising=False, rule=rule)
    assert [each.point.concurrency for each in mirror.frontier] == [
        each.point.concurrency for each in reversed(fit.frontier)
    ]
    at = mirror.positions(20)
    inside = series.curve.sample(2e4 - at)
    found = mirror.sample(at)
    known = np.isfinite(inside) & np.isfinite(found)  # rounding may leave the ends
    np.testing.assert_allclose(found[known], inside[known], rtol=1e-6)
    assert known.sum() >= len(at) - 2


def test_a_latency_frontier_holds_what_no_other_point_beats() -> None:
    fit = AxisFit.of(points([100, 200, 150, 400], [10, 30, 5, 25]), rising=False, rule="linear")
    assert [(e.point.interactivity, e.point.tput_per_gpu) for e in fit.frontier] == [
        (100, 10),
        (200, 30),
    ]
    assert [each.point.concurrency for each in fit.dominated] == [2, 3]
    assert fit.sample(np.array([150.0, 90.0])).tolist()[0] == 20
    assert np.isnan(fit.sample(np.array([90.0]))).all()


@pytest.mark.parametrize("rising", [True, False])
def test_bands_hold_the_curve_and_end_where_repeats_do(rising: bool) -> None:
    x = [90.0, 60.0, 30.0, 15.0]
    x = x if rising else x[::-1]
    own = points(x, [900.0, 2400.0, 4800.0, 6000.0], repeats=5, noise=0.01)
    fit = AxisFit.of(own, rising=rising, rule="published")
    at = fit.positions(40)
    curve, band = fit.sample(at), fit.band(at)
    held = [(y, each) for y, each in zip(curve, band, strict=True) if each is not None]
    assert len(held) > len(at) * 0.8
    for y, (low, high) in held:
        assert low <= y <= high
        assert high / low < 1.2
    # The last 2.5 % on either side are not surely reached.
    assert band[0] is None or band[-1] is None
    for each in fit.frontier:
        assert each.x_interval
        assert each.x_interval[0] < each.point.interactivity < each.x_interval[1]
    few = AxisFit.of(points(x, [900.0, 2400.0, 4800.0, 6000.0], 2), rising=rising, rule="published")
    assert few.band(at) == [None] * len(at)


@given(
    values=st.lists(
        st.lists(st.floats(allow_nan=False), min_size=3, max_size=3), min_size=1, max_size=80
    )
)
def test_intervals_of_many_are_those_of_each(values: list[list[float]]) -> None:
    draws = np.array(values)
    low, high = intervals(draws)
    for place in range(3):
        own = draws[:, place]
        alone = interval(own, float(np.median(own)))
        both = np.isfinite((low[place], high[place])).all()
        if alone is not None:
            middle = float(np.median(own))
            assert alone == (min(low[place], middle), max(high[place], middle))
        else:
            # More than 2.5 % on both sides together; `intervals` asks each side for itself.
            assert np.count_nonzero(~np.isfinite(own)) > int(len(own) * 0.025)
        assert both or alone is None
