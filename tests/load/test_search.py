from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.errors import InputError
from upcurve.load.search import TOLERANCE, Search, parse_limits, strain


def find(search, strain_at, most=60):
    """Run a search against a known truth; return the answer and the loads that were tried."""
    tried = {}
    while (load := search.next(tried)) is not None:
        assert load not in tried, "no load is measured twice"
        assert search.lowest <= load <= search.highest
        tried[load] = strain_at(load)
        assert len(tried) < most
    return search.answer(tried), tried


@given(st.integers(1, 4000), st.floats(0.2, 4))
def test_streams_end_at_the_edge(edge, power):
    answer, tried = find(Search(1, 4096, whole=True), lambda n: (n / (edge + 0.5)) ** power)
    assert edge - answer <= max(0, TOLERANCE * edge)
    assert answer <= edge
    assert len(tried) <= 24


@given(st.floats(0.11, 999), st.floats(0.2, 4))
def test_rates_end_within_the_tolerance(edge, power):
    answer, _ = find(Search(0.1, 1000, whole=False), lambda rate: (rate / edge) ** power)
    assert edge / (1 + TOLERANCE) / 1.000001 <= answer <= edge * 1.000001


def test_a_cliff_is_found_too():
    answer, tried = find(Search(1, 1024, whole=True), lambda n: 0.3 if n <= 100 else float("inf"))
    assert 95 <= answer <= 100
    assert len(tried) <= 16


def test_the_lowest_load_breaks_and_the_highest_keeps():
    search = Search(4, 64, whole=True)
    assert find(search, lambda _: 2.0) == (None, {4: 2.0})
    assert find(search, lambda _: 0.5)[0] == 64


def test_what_was_measured_before_is_not_measured_again():
    search = Search(1, 1024, whole=True)
    answer, tried = find(search, lambda n: n / 77.5)
    half = dict(list(tried.items())[: len(tried) // 2])
    assert search.next(half) == list(tried)[len(half)]
    assert answer == search.answer(tried)


def figures(requests=1000, failed=0, **values):
    stats = {
        name: {"p50": value, "p99": value if requests >= 662 else None, "mean": value, "p10": value}
        for name, value in values.items()
    }
    return {"requests": requests, "failed": failed, **stats}


def test_limits_are_read():
    ttft, tpot, pace = parse_limits("ttft_p99<1s, TPOT < 25 ms,interactivity_p10>40")
    assert (ttft.metric, ttft.statistic, ttft.bound, ttft.samples) == ("ttft_ms", "p99", 1000, 662)
    assert (tpot.metric, tpot.statistic, tpot.bound, tpot.samples) == ("tpot_ms", "p50", 25, 1)
    assert (pace.statistic, pace.bound, pace.samples) == ("p10", 40, 64)
    point = figures(ttft_ms=500, tpot_ms=20, interactivity_per_user=50)
    assert strain((ttft, tpot, pace), point) == 0.8


@pytest.mark.parametrize(
    "text",
    ["", "ttft", "ttft<", "ttft>5ms", "tput<3", "interactivity<4", "interactivity>4ms",
     "ttft_p10<1s", "interactivity_p99>4", "ttft<0", "ttft<1.2.3", "tpot_p42<3"],
)  # fmt: skip
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(InputError, match="search"):
        parse_limits(text)


def test_failures_break_a_limit_and_too_few_requests_are_said():
    (limit,) = parse_limits("ttft_p99<1s")
    assert strain((limit,), figures(failed=20, ttft_ms=1)) == float("inf")
    with pytest.raises(InputError, match="at least 662"):
        strain((limit,), figures(requests=100, ttft_ms=1))


@pytest.mark.parametrize("bounds", [(0, 5), (5, 5), (6, 5)])
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(InputError, match="search"):
        Search(*bounds, whole=True)
