from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.examples import MS, trace
from upcurve.load.arrivals import ClosedLoop, OpenLoop
from upcurve.load.steady import (
    Span,
    full_span,
    longest_span,
    mean_in_flight,
    steady_span,
    tokens_within,
)


def spans(*pairs):
    return [Span(start, end) for start, end in pairs]


def test_ramp_and_drain_are_left_out():
    # Two streams: 0-10-20 and 3-12; together from 3 to 12, the hand-over at 10 is no gap.
    assert longest_span(spans((0, 10), (10, 20), (3, 12)), 2) == Span(3, 12)


def test_of_two_spans_the_longest():
    assert longest_span(spans((0, 4), (6, 20), (0, 20)), 2) == Span(6, 20)


def test_nine_of_ten_streams_are_enough_and_eight_are_not():
    nine = [trace(stream=stream, chunks=((50, 1), (100, 1))) for stream in range(9)]
    assert steady_span(nine, ClosedLoop(10, requests=10)) == Span(0, 100 * MS)
    assert steady_span(nine[:8], ClosedLoop(10, requests=10)) is None


def test_nothing_in_flight_is_no_state():
    assert steady_span([], ClosedLoop(1, requests=1)) is None
    assert longest_span([], 1) is None
    assert longest_span(spans((5, 5)), 1) is None


def test_an_open_loop_is_steady_from_its_ramp_to_its_last_arrival():
    due = [trace(sent=at, chunks=((at + 10, 1), (at + 500, 1))) for at in (0, 100, 200, 300)]
    assert steady_span(due, OpenLoop(10, requests=4)) == Span(0, 300 * MS)
    assert steady_span(due, OpenLoop(10, requests=4, ramp_s=0.15)) == Span(150 * MS, 300 * MS)
    assert steady_span(due, OpenLoop(10, requests=4, ramp_s=9)) is None


def test_the_full_load_lasts_from_the_last_start_to_the_first_end():
    # Stream 1 starts at 5 and ends at 40, stream 0 goes on until 60.
    requests = [
        trace(stream=0, sent=0, chunks=((30, 1),)),
        trace(stream=0, sent=32, chunks=((60, 1),)),
        trace(stream=1, sent=5, chunks=((40, 1),)),
    ]
    span = full_span(requests)
    assert span == Span(5 * MS, 40 * MS)
    # Two in flight but for the 2 ms in which stream 0 had none.
    assert mean_in_flight(requests, span) == pytest.approx(2 - 2 / 35)
    assert full_span(requests[:1]) == Span(0, 30 * MS)
    assert full_span([]) is None
    assert full_span([requests[0], trace(stream=2, sent=70, chunks=((80, 1),))]) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted), min_size=1, max_size=12
    ),
    st.integers(1, 6),
)
def test_against_counting_at_every_instant(pairs, target):
    """Half-way between whole times nothing changes: count there, and join neighbours."""
    enough = [sum(a <= t < b for a, b in pairs) >= target for t in range(51)]
    longest, length = 0, 0
    for each in enough:
        length = length + 1 if each else 0
        longest = max(longest, length)
    found = longest_span(spans(*pairs), target)
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
