from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from upcurve.errors import InputError
from upcurve.frontier.interpolation import RULES, Curve

steps = st.integers(1, 1000).map(lambda n: n / 8)


@st.composite
def knots(draw, least=1, monotone=True):
    """Strictly ascending x; y strictly descending like a frontier's, or anything."""
    count = draw(st.integers(least, 9))
    x = np.cumsum([draw(steps) for _ in range(count)])
    if monotone:
        y = np.cumsum([draw(steps) for _ in range(count)])[::-1].copy()
    else:
        y = np.array([draw(st.integers(-50, 50)) / 4 for _ in range(count)])
    return x, y


def dense(x):
    return np.unique(np.concatenate([np.linspace(a, b, 17) for a, b in pairwise(x)]))


# The published rule straight from its formulas, in exact arithmetic.


def sign(value):
    return (value > 0) - (value < 0)


def slopes_by_the_formulas(x, y):
    n = len(x)
    h = [x[i + 1] - x[i] for i in range(n - 1)]
    s = [(y[i + 1] - y[i]) / h[i] for i in range(n - 1)]
    if n == 2:
        return [s[0], s[0]]
    m = [Fraction(0)] * n
    for i in range(1, n - 1):
        p = (s[i - 1] * h[i] + s[i] * h[i - 1]) / (h[i - 1] + h[i])
        least = min(abs(s[i - 1]), abs(s[i]), abs(p) / 2)
        m[i] = (sign(s[i - 1]) + sign(s[i])) * least
    m[0] = (3 * s[0] - m[1]) / 2
    m[n - 1] = (3 * s[n - 2] - m[n - 2]) / 2
    return m


def published_by_the_formulas(x, y, at):
    x, y, at = [Fraction(v) for v in x], [Fraction(v) for v in y], Fraction(at)
    m = slopes_by_the_formulas(x, y)
    i = next(i for i in range(len(x) - 1) if x[i] <= at <= x[i + 1])
    h, d = x[i + 1] - x[i], at - x[i]
    s = (y[i + 1] - y[i]) / h
    # Power basis, not the Hermite basis that the package evaluates.
    quadratic, cubic = (3 * s - 2 * m[i] - m[i + 1]) / h, (m[i] + m[i + 1] - 2 * s) / h**2
    return y[i] + m[i] * d + quadratic * d**2 + cubic * d**3


@given(knots(least=2, monotone=False), st.floats(0, 1))
def test_published_rule_agrees_with_its_formulas_in_fractions(xy, share):
    x, y = xy
    at = min(max(float(x[0] + share * (x[-1] - x[0])), x[0]), x[-1])
    expected = float(published_by_the_formulas(x.tolist(), y.tolist(), at))
    assert Curve.through(x, y).at(at).value == pytest.approx(expected, rel=1e-10, abs=1e-9)


@given(knots(least=3))
def test_pchip_is_scipys(xy):
    x, y = xy
    xs = dense(x)
    np.testing.assert_allclose(
        Curve.through(x, y, "pchip").sample(xs), PchipInterpolator(x, y)(xs), rtol=1e-10
    )


@given(knots(least=2))
def test_linear_is_numpys(xy):
    x, y = xy
    np.testing.assert_allclose(
        Curve.through(x, y, "linear").sample(dense(x)), np.interp(dense(x), x, y), rtol=1e-12
    )


@given(knots(least=3))
def test_steffen_ends_follow_the_three_cases_of_the_paper(xy):
    x, y = xy
    curve = Curve.through(x, y, "steffen")
    for end, inner, far, found in (
        (0, 1, 2, curve.slopes[0][0]),
        (-1, -2, -3, curve.slopes[1][-1]),
    ):
        h1, h2 = abs(x[inner] - x[end]), abs(x[far] - x[inner])
        s1 = (y[inner] - y[end]) / (x[inner] - x[end])
        s2 = (y[far] - y[inner]) / (x[far] - x[inner])
        p = s1 * (1 + h1 / (h1 + h2)) - s2 * h1 / (h1 + h2)
        if p * s1 <= 0:
            expected = 0
        elif abs(p) > 2 * abs(s1):
            expected = 2 * s1
        else:
            expected = p
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("rule", RULES)
@given(xy=knots(monotone=False))
def test_every_rule_passes_through_its_knots(rule, xy):
    x, y = xy
    curve = Curve.through(x, y, rule)
    assert curve.sample(x).tolist() == y.tolist()
    for knot, value in zip(x, y, strict=True):
        reading = curve.at(knot)
        assert (reading.value, reading.status, reading.segment) == (value, "measured", None)


@pytest.mark.parametrize("rule", RULES)
@given(xy=knots(least=2))
def test_no_rule_overshoots_or_turns_between_the_knots_of_a_frontier(rule, xy):
    x, y = xy
    values = Curve.through(x, y, rule).sample(dense(x))
    assert (np.diff(values) <= 1e-12 * y[0]).all()
    assert values.max() <= y[0] * (1 + 1e-12)
    assert values.min() >= y[-1] - 1e-12 * y[0]


@given(knots(least=3, monotone=False))
def test_the_published_rule_stays_between_neighbouring_knots_on_any_data(xy):
    x, y = xy
    curve = Curve.through(x, y)
    for i in range(len(x) - 1):
        values = curve.sample(np.linspace(x[i], x[i + 1], 17))
        assert values.max() <= max(y[i], y[i + 1]) + 1e-9
        assert values.min() >= min(y[i], y[i + 1]) - 1e-9


@given(knots(least=3))
def test_published_ends_have_no_curvature(xy):
    x, y = xy
    m = Curve.through(x, y).slopes
    h, s = np.diff(x), np.diff(y) / np.diff(x)
    start = (6 * s[0] - 4 * m[0][0] - 2 * m[1][0]) / h[0]
    end = (-6 * s[-1] + 2 * m[0][-1] + 4 * m[1][-1]) / h[-1]
    np.testing.assert_allclose([start * h[0] / s[0], end * h[-1] / s[-1]], 0, atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_two_knots_are_a_straight_line_and_all_of_it_is_an_end(rule):
    curve = Curve.through([10, 20], [100, 50], rule)
    for x in (11, 12.5, 19):
        reading = curve.at(x)
        assert reading.value == pytest.approx(150 - 5 * x)
        assert (reading.status, reading.segment) == ("interpolated", "end")


@pytest.mark.parametrize("rule", RULES)
def test_one_knot_has_a_value_only_there(rule):
    curve = Curve.through([10], [100], rule)
    assert curve.at(10).value == 100
    assert curve.at(10.001).status == "unreachable"
    assert curve.at(9.999).status == "below_range"
    np.testing.assert_array_equal(curve.sample([9, 10, 11]), [math.nan, 100, math.nan])


def test_the_first_and_last_interval_are_ends_and_the_rest_interior():
    curve = Curve.through([1, 2, 3, 4], [4, 3, 2, 1])
    found = [curve.at(x).segment for x in (1.5, 2.5, 3.5)]
    assert found == ["end", "interior", "end"]


@pytest.mark.parametrize("rule", RULES)
@given(xy=knots())
def test_nothing_is_extrapolated(rule, xy):
    x, y = xy
    curve = Curve.through(x, y, rule)
    below, above = np.nextafter(x[0], -np.inf), np.nextafter(x[-1], np.inf)
    assert curve.at(below).status == "below_range"
    assert curve.at(above).status == "unreachable"
    assert curve.at(below).value is curve.at(above).value is None
    assert np.isnan(curve.sample([below, above, -np.inf, np.inf, np.nan])).all()


@given(knots(least=2), st.floats(0.1, 10), st.floats(0.1, 10))
def test_units_do_not_matter(xy, x_unit, y_unit):
    x, y = xy
    scaled = Curve.through(x * x_unit, y * y_unit).sample(dense(x)[1:-1] * x_unit)
    plain = Curve.through(x, y).sample(dense(x)[1:-1]) * y_unit
    np.testing.assert_allclose(scaled, plain, rtol=1e-9)


def test_an_unknown_rule_is_named_with_the_known_ones():
    with pytest.raises(InputError, match=r"rule: .*'cubic'.*published, linear"):
        Curve.through([1, 2], [2, 1], "cubic")


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([1, 1], [2, 1]), ([2, 1], [1, 2]), ([1, 2], [1]), ([1, math.nan], [2, 1])],
)
def test_knots_that_are_no_frontier_are_refused(x, y):
    with pytest.raises(InputError, match="knots"):
        Curve.through(x, y)
