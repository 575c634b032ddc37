from __future__ import annotations

import json
from dataclasses import replace

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.examples import answers, failed, trace
from upcurve.load.health import ClientHealth
from upcurve.load.metrics import point_metrics, statistics
from upcurve.load.workload import Workload

HEALTH = ClientHealth(lag_p99_ms=1.0, cpu_s=0.1, wall_s=10.0)


def metrics(traces, *, osl=3, concurrency=1, gpus=1, health=HEALTH):
    return point_metrics(traces, health, Workload(100, osl), concurrency=concurrency, gpus=gpus)


def test_two_requests_by_hand():
    point = metrics(
        [
            trace(sent=0, chunks=((10, 1), (20, 1), (30, 1))),
            trace(sent=30, chunks=((50, 1), (80, 1), (130, 1))),
        ],
        gpus=2,
    )
    assert point["duration_s"] == pytest.approx(0.13)
    assert point["tput_per_gpu"] == pytest.approx(206 / 0.13 / 2)
    assert point["input_tput_per_gpu"] == pytest.approx(200 / 0.13 / 2)
    assert point["output_tput_per_gpu"] == pytest.approx(6 / 0.13 / 2)
    assert point["tpot_ms"]["p50"] == pytest.approx((10 + 40) / 2)
    assert point["interactivity"] == pytest.approx(1000 / 25)
    assert point["ttft_ms"] == {
        "mean": pytest.approx(15),
        "p50": pytest.approx(15),
        "p90": None,
        "p99": None,
        "min": pytest.approx(10),
        "max": pytest.approx(20),
        "count": 2,
    }
    assert point["itl_ms"]["mean"] == pytest.approx((10 + 10 + 30 + 50) / 4)
    assert point["e2e_ms"]["max"] == pytest.approx(100)
    assert point["delivered_concurrency"] == pytest.approx(130 / 130)
    assert point["steady_state"]["start_s"] == 0
    assert point["steady_state"]["end_s"] == pytest.approx(0.13)
    assert point["steady_state"]["tput_per_gpu"] == pytest.approx(point["tput_per_gpu"])
    assert (point["requests"], point["failed"], point["failures"]) == (2, 0, {})
    assert point["output_length_ok"]
    assert point["chunk_coalescing"] == 1.0
    assert point["warnings"] == []
    assert json.loads(json.dumps(point)) == point


def test_coalesced_chunks_do_not_make_tokens_free():
    coalesced = trace(chunks=((100, 4), (120, 4), (140, 4)))
    point = metrics([coalesced], osl=12)
    assert point["chunk_coalescing"] == 4.0
    assert "4.0 tokens a chunk" in point["warnings"][0]


def test_warm_up_counts_nowhere():
    measured = [trace(sent=0), trace(sent=30, chunks=((50, 1), (80, 1), (130, 1)))]
    warm = [trace(sent=-9000, chunks=((-10, 1), (-5, 5)), warm_up=True)]
    assert metrics(warm + measured) == metrics(measured)


def test_failures_are_counted_and_never_in_latencies():
    good = [trace(sent=0), trace(sent=30, chunks=((50, 1), (80, 1), (130, 1)))]
    # A broken answer had content: its tokens and times count for nothing.
    bad = [
        failed("http_5xx", sent=5, ended=6),
        failed("http_5xx", sent=6, ended=7),
        trace(sent=1, chunks=((2, 1), (3, 1)), failure="cut", detail="lost"),
    ]
    clean, point = metrics(good), metrics(good + bad)
    for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms", "tput_per_gpu", "interactivity"):
        assert point[name] == clean[name]
    assert point["failures"] == {"cut": 1, "http_5xx": 2}
    assert (point["requests"], point["failed"]) == (5, 3)
    assert "1 of 5 requests failed: cut (lost)" in point["warnings"]
    assert "2 of 5 requests failed: http_5xx (broken)" in point["warnings"]


def test_a_point_without_success_has_no_figures():
    point = metrics([failed(), failed("connect")])
    assert point["failed"] == 2
    for name in ("tput_per_gpu", "interactivity", "chunk_coalescing"):
        assert point[name] is None
    assert point["ttft_ms"]["p50"] is None
    assert point["ttft_ms"]["count"] == 0
    assert not point["output_length_ok"]
    json.dumps(point, allow_nan=False)


def test_short_answers_and_foreign_counts_are_told():
    point = metrics([trace(prompt_tokens=101, output_tokens=2), trace(output_tokens=3)])
    assert not point["output_length_ok"]
    text = " | ".join(point["warnings"])
    assert "1 of 2 answers have 2 tokens, 3 were asked for" in text
    assert "the server counts 101 input tokens, 100 were sent" in text
    assert "differs from the token ids" in text


def test_missing_usage_is_told_and_counted_from_the_stream():
    point = metrics([trace(output_tokens=None, prompt_tokens=None)])
    assert point["output_tput_per_gpu"] == pytest.approx(3 / 0.03)
    assert point["input_tput_per_gpu"] == pytest.approx(100 / 0.03)
    assert any("no usage" in words for words in point["warnings"])


def test_a_prefix_cache_is_told():
    point = metrics([trace(cached_tokens=64)])
    assert any("64 % of the input came from" in words for words in point["warnings"])


@pytest.mark.parametrize(
    ("health", "saturated"),
    [
        (ClientHealth(1.0, 4.9, 10.0), False),
        (ClientHealth(1.0, 5.1, 10.0), True),
        (ClientHealth(10.1, 0.1, 10.0), True),
    ],
)
def test_a_busy_client_is_told(health, saturated):
    point = metrics([trace()], health=health)
    assert point["client"]["saturated"] is saturated
    assert any("too busy" in words for words in point["warnings"]) is saturated


def test_one_output_token_has_no_pace():
    point = metrics([trace(chunks=((10, 1),))], osl=1)
    assert point["interactivity"] is None
    assert point["tpot_ms"]["count"] == 0
    assert point["ttft_ms"]["p50"] == 10


@pytest.mark.parametrize(
    ("count", "given"),
    [(1, "p50"), (63, "p50"), (64, "p50 p90"), (661, "p50 p90"), (662, "p50 p90 p99")],
)
def test_a_percentile_is_given_only_where_the_sample_carries_it(count, given):
    found = statistics(numpy.arange(count, dtype=float))
    assert " ".join(key for key in ("p50", "p90", "p99") if found[key] is not None) == given
    assert found["mean"] == pytest.approx((count - 1) / 2)


def test_chunks_of_one_read_are_one_arrival():
    apart = trace(chunks=((10, 2), (20, 3), (30, 1)))
    together = trace(chunks=((10, 1), (10, 1), (20, 1), (20, 1), (20, 1), (30, 1)))
    point = metrics([together], osl=6)
    assert point["interactivity"] == metrics([apart], osl=6)["interactivity"]
    assert point["chunk_coalescing"] == 2.0
    assert any("2.0 tokens arrive together" in words for words in point["warnings"])


def test_two_chunks_in_one_read_now_and_then_are_no_buffer():
    point = metrics([trace(chunks=[(10 * max(1, i), 1) for i in range(10)])], osl=10)
    assert point["chunk_coalescing"] == pytest.approx(10 / 9)
    assert point["warnings"] == []


def test_an_answer_in_one_piece_has_no_pace():
    point = metrics([trace(chunks=((10, 1), (10, 1), (10, 1)))])
    assert point["interactivity"] is None
    assert point["tput_per_gpu"] == pytest.approx(103 / 0.01)
    assert any("came in one piece" in words for words in point["warnings"])


@pytest.mark.parametrize(("idle", "told"), [(3, False), (5, True)])
def test_a_load_that_falls_two_percent_short_is_told(idle, told):
    # Two requests of 100 ms with an empty slot between them.
    first = trace(sent=0, chunks=((50, 1), (75, 1), (100, 1)))
    later = 100 + idle
    second = trace(sent=later, chunks=[(later + each, 1) for each in (50, 75, 100)])
    point = metrics([first, second])
    assert point["delivered_concurrency"] == pytest.approx(200 / (200 + idle))
    assert any("in flight on average" in words for words in point["warnings"]) is told


@given(answers, st.integers(-(10**12), 10**12))
def test_the_clock_has_no_zero(answer, shift):
    times = ("scheduled_ns", "sent_ns", "ended_ns", "first_byte_ns", "first_content_ns", "last_ns")
    later = replace(
        answer,
        chunk_ns=tuple(each + shift for each in answer.chunk_ns),
        **{name: getattr(answer, name) + shift for name in times},
    )
    osl = answer.output_tokens
    assert metrics([later], osl=osl) == metrics([answer], osl=osl)
