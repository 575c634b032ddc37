from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.examples import MS, answers, trace
from upcurve.load.pace import Pace, arrivals, gaps_ms, tpot_ms


def test_tokens_of_a_chunk_share_its_time():
    coalesced = trace(chunks=((100, 4), (120, 4), (140, 4)))
    assert tpot_ms(coalesced) == pytest.approx(40 / 8)
    assert gaps_ms(coalesced) == pytest.approx([5.0] * 8)
    assert Pace.of(coalesced).chunk_gaps_ms == pytest.approx([20.0] * 2)


def test_chunks_of_one_read_are_one_arrival():
    together = trace(chunks=((10, 1), (10, 1), (20, 1), (20, 1), (20, 1), (30, 1)))
    times, tokens = arrivals(together)
    assert (times.tolist(), tokens.tolist()) == ([10 * MS, 20 * MS, 30 * MS], [2, 3, 1])
    assert tpot_ms(together) == pytest.approx(20 / 4)
    assert gaps_ms(together) == pytest.approx([10 / 3] * 3 + [10])


def test_the_server_counts_where_it_does():
    assert trace(output_tokens=7).tokens == 7
    assert trace(output_tokens=None).tokens == 3


@pytest.mark.parametrize(
    ("chunks", "has_pace"),
    [
        ((), False),
        (((10, 1),), False),
        (((10, 8),), False),
        (((10, 4), (10, 4)), False),
        (((10, 4), (20, 0)), False),
        (((10, 4), (20, 1)), True),
    ],
)
def test_what_has_a_pace(chunks, has_pace):
    assert (Pace.of(trace(chunks=chunks)).tpot_ms is not None) is has_pace


@given(answers)
def test_the_mean_gap_of_a_request_is_its_tpot(answer):
    gaps = gaps_ms(answer)
    assert len(gaps) == answer.output_tokens - answer.chunk_tokens[0]
    assert gaps.mean() == pytest.approx(tpot_ms(answer))
    pace = Pace.of(answer)
    assert pace.gaps_ms == pytest.approx(gaps)
    assert pace.tpot_ms == tpot_ms(answer)
    assert (pace.arrivals, pace.tokens) == (len(set(answer.chunk_ns)), sum(answer.chunk_tokens))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(1, 3))
def test_a_chunk_without_tokens_loses_no_time(counts, last):
    answer = trace(chunks=[(0, 1)] + [(i + 1, n) for i, n in enumerate([*counts, last])])
    assert gaps_ms(answer).sum() == pytest.approx((answer.last_ns - answer.first_content_ns) / MS)
