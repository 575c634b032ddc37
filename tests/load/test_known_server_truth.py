"""The schedule to the nanosecond, and the summary of what was served."""

from __future__ import annotations

import itertools
import json
from array import array
from random import Random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.errors import InputError
from upcurve.load.known_server import (
    Behaviour,
    Served,
    check_truth_file,
    truth,
    truth_summary,
    write_truth,
)
from upcurve.load.known_server.request import COMPLETIONS, RefusedError, read_request
from upcurve.load.known_server.stream import Stream
from upcurve.load.known_server.wire import Events

MS = 1_000_000


class Memory:
    """What was written, instead of a connection."""

    def __init__(self):
        self.data = []

    def write(self, data):
        self.data.append(data)


def schedule(known, tokens, jitter=None, fault=None, stall_ms=0.0, beside=0):
    """Return when each chunk is due after a start at 1 s, in ns, and the record."""
    body = {"model": "known", "prompt": [1], "max_tokens": tokens, "stream": True}
    asked = read_request(COMPLETIONS, orjson.dumps(body), known)
    served = Served(0, 1, "", False, 1, fault)
    stream = Stream(asked, served, known, Events(asked, known), jitter, stall_ms, Memory())
    dues = [stream.begin(1000 * MS, beside)]
    while (due := stream.step()) is not None:
        dues.append(due)
    assert len(stream.sink.data) == len(dues) == len(served.written_ns)
    assert sum(served.written_tokens) == tokens
    return [due - 1000 * MS for due in dues], served


milliseconds = st.integers(0, 4000).map(lambda each: each / 4)


@given(milliseconds, milliseconds, st.integers(1, 40), st.integers(1, 9))
def test_chunks_are_due_with_their_last_token(first, interval, tokens, size):
    known = Behaviour(first, interval, size)
    lasts = [min(size * (chunk + 1), tokens) for chunk in range(-(-tokens // size))]
    expected = [(first + (last - 1) * interval) * MS for last in lasts]
    assert schedule(known, tokens)[0] == pytest.approx(expected, abs=1)


@given(milliseconds, milliseconds, st.integers(0, 9))
def test_each_other_request_makes_the_gaps_longer(interval, each, beside):
    busy, _ = schedule(Behaviour(5, interval, per_stream_ms=each), 4, beside=beside)
    assert busy == schedule(Behaviour(5, interval + beside * each), 4)[0]


@given(st.integers(2, 40), st.integers(1, 9), milliseconds)
def test_a_stall_moves_everything_after_half_of_the_tokens(tokens, size, stall):
    known = Behaviour(10, 2, size)
    even, _ = schedule(known, tokens)
    dues, served = schedule(known, tokens, fault="stall", stall_ms=stall)
    late = [round(with_ - without) for with_, without in zip(dues, even, strict=True)]
    ends = itertools.accumulate(served.written_tokens)
    assert late == [stall * MS if end > tokens // 2 else 0 for end in ends]
    assert served.stalled_after == late.count(0) * size or not stall


@given(st.integers(0, 9), st.integers(2, 60), milliseconds)
def test_jitter_stays_in_its_bounds_and_comes_again(seed, tokens, width):
    known = Behaviour(1000, 1000, jitter_ms=width)
    dues, _ = schedule(known, tokens, Random(seed))
    assert dues == schedule(known, tokens, Random(seed))[0]
    gaps = [b - a for a, b in itertools.pairwise([0, *dues])]
    assert all(abs(gap - 1000 * MS) <= width * MS + 1 for gap in gaps)
    assert width < 1 or len(set(gaps)) > 1
    assert width < 1 or dues != schedule(known, tokens, Random(seed + 1))[0]


def test_jitter_is_centred_and_fills_its_bounds():
    dues, _ = schedule(Behaviour(20, 20, jitter_ms=10), 4000, Random(1))
    gaps = [(b - a) / MS for a, b in itertools.pairwise([0, *dues])]
    assert sum(gaps) / len(gaps) == pytest.approx(20, abs=4 * 10 / 3**0.5 / 4000**0.5)
    assert (min(gaps), max(gaps)) == pytest.approx((10, 30), abs=0.1)


def test_tokens_never_go_back_in_time():
    dues, _ = schedule(Behaviour(1, 1, jitter_ms=50), 200, Random(3))
    assert dues == sorted(dues)
    assert dues[0] >= 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
bodies = json_values | st.fixed_dictionaries(
    {"model": st.just("known")},
    optional=dict.fromkeys(("prompt", "messages", "max_tokens", "stream_options"), json_values),
)


@given(bodies, st.sampled_from([COMPLETIONS, "/v1/chat/completions"]))
def test_any_json_is_taken_or_refused(body, endpoint):
    try:
        asked = read_request(endpoint, orjson.dumps(body), Behaviour())
    except RefusedError as error:
        status = error.status
    else:
        status = 200
        assert asked.tokens >= 1
        assert asked.prompt_tokens >= 0
    assert status in (200, 400, 404)


def served(arrived, written=(), ended=None, *, tokens=None, fault=None, left=None):
    """Return a record, of times in ms."""
    return Served(
        arrived_ns=arrived * MS,
        prompt_tokens=3,
        prompt_digest="d",
        warm=False,
        in_flight=1,
        fault=fault,
        written_ns=array("q", [each * MS for each in written]),
        written_tokens=array("i", tokens or [1] * len(written)),
        ended_ns=None if ended is None else ended * MS,
        left_ns=None if left is None else left * MS,
    )


def test_a_summary_by_hand():
    record = [
        served(0, (100, 110, 140), 150),  # TTFT 100, TPOT 20
        served(50, (250, 310), 350, tokens=[4, 2]),  # TTFT 200, TPOT 30
        served(100, (160, 170), 180, fault="cut"),
        served(140, (200,), left=240),
        served(200, (500,), 500, tokens=[5]),  # TTFT 300, no TPOT
    ]
    assert truth_summary(record) == {
        "requests": 3,
        "tokens": 14,
        "ttft_ms": {"mean": 200.0, "p50": 200.0, "p99": pytest.approx(298.0)},
        "tpot_ms": {"mean": 25.0, "p50": 25.0},
        # At most four from 140 on: 10 ms of four, 30 of three, 20 of two, until 200.
        "concurrency_mean": pytest.approx((10 * 4 + 30 * 3 + 20 * 2) / 60),
        "tokens_per_s": pytest.approx(14 / 0.5),
        "duration_s": 0.5,
    }


def test_no_summary_of_nothing():
    for record in ([], [served(0, (), 1, fault="empty")]):
        summary = truth_summary(record)
        assert (summary.pop("requests"), summary.pop("tokens")) == (0, 0)
        assert summary.pop("ttft_ms") == {"mean": None, "p50": None, "p99": None}
        assert summary.pop("tpot_ms") == {"mean": None, "p50": None}
        assert set(summary.values()) == {None}


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), min_size=1, max_size=12))
def test_the_mean_concurrency_is_that_of_every_moment(spans):
    record = [served(start, (start + 1,), start + length) for start, length in sorted(spans)]
    counts = [sum(a <= at < a + length for a, length in spans) for at in range(51)]
    last = max(start for start, _ in spans)
    inside = counts[counts.index(max(counts)) : last]
    expected = sum(inside) / len(inside) if inside else None
    assert truth_summary(record)["concurrency_mean"] == pytest.approx(expected)


def test_the_truth_on_disk(tmp_path):
    record = [served(1, (2, 4), 5, tokens=[2, 3]), served(2, fault="cut")]
    path = tmp_path / "truth.json"
    path.write_text("old")
    check_truth_file(path)
    write_truth(path, record)
    found = json.loads(path.read_text())
    assert found == truth(record)
    assert found["requests"] == [
        {
            "arrived_ns": 1 * MS,
            "ended_ns": 5 * MS,
            "prompt_tokens": 3,
            "in_flight": 1,
            "fault": None,
            "endpoint": "/v1/completions",
            "first_written_ns": 2 * MS,
            "last_written_ns": 4 * MS,
            "tokens": 5,
            "chunks": 2,
        },
        {
            "arrived_ns": 2 * MS,
            "ended_ns": None,
            "prompt_tokens": 3,
            "in_flight": 1,
            "fault": "cut",
            "endpoint": "/v1/completions",
            "first_written_ns": None,
            "last_written_ns": None,
            "tokens": 0,
            "chunks": 0,
        },
    ]
    assert [each.name for each in tmp_path.iterdir()] == ["truth.json"]


def test_a_truth_that_cannot_be_written(tmp_path):
    for path in (tmp_path / "none" / "truth.json", tmp_path):
        with pytest.raises(InputError, match=r"truth: .* cannot be written"):
            check_truth_file(path)
        with pytest.raises(InputError, match=r"truth: .* cannot be written"):
            write_truth(path, [])
    assert list(tmp_path.iterdir()) == []
