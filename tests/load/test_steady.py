from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.examples import MS, trace
from upcurve.load.steady import Span, steady_span, tokens_within


def spans(*pairs):
    return [Span(start, end) for start, end in pairs]


def test_ramp_and_drain_are_left_out():
    # Two streams: 0-10-20 and 3-12; together from 3 to 12, the hand-over at 10 is no gap.
    assert steady_span(spans((0, 10), (10, 20), (3, 12)), 2) == Span(3, 12)


def test_of_two_spans_the_longest():
    assert steady_span(spans((0, 4), (6, 20), (0, 20)), 2) == Span(6, 20)


def test_nine_of_ten_streams_are_enough_and_eight_are_not():
    nine = spans(*[(0, 100)] * 9)
    assert steady_span(nine, 10) == Span(0, 100)
    assert steady_span(nine[:8], 10) is None


def test_nothing_in_flight_is_no_state():
    assert steady_span([], 1) is None
    assert steady_span(spans((5, 5)), 1) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted), min_size=1, max_size=12
    ),
    st.integers(1, 6),
)
def test_against_counting_at_every_instant(pairs, concurrency):
    """Half-way between whole times nothing changes: count there, and join neighbours."""
    target = -(-9 * concurrency // 10)
    enough = [sum(a <= t < b for a, b in pairs) >= target for t in range(51)]
    longest, length = 0, 0
    for each in enough:
        length = length + 1 if each else 0
        longest = max(longest, length)
    found = steady_span(spans(*pairs), concurrency)
    assert (found.end_ns - found.start_ns if found else 0) == longest
    if found:
        assert all(enough[found.start_ns : found.end_ns])


@given(st.lists(st.integers(-5, 60), min_size=1, max_size=6, unique=True))
def test_spans_add_up_to_the_whole(cuts):
    request = trace(sent=5, chunks=((15, 2), (20, 1), (50, 3)))
    edges = [-10, *sorted(cuts), 70]
    parts = [
        tokens_within(request, 100, Span(a * MS, b * MS)) for a, b in itertools.pairwise(edges)
    ]
    assert sum(into for into, _ in parts) == pytest.approx(100)
    assert sum(out for _, out in parts) == 6


def test_half_of_the_prefill_is_half_of_the_input():
    assert tokens_within(trace(sent=0), 100, Span(5 * MS, 20 * MS)) == (pytest.approx(50), 2)
