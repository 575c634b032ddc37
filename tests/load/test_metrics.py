from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.examples import answers, failed, trace
from upcurve.errors import InputError
from upcurve.load.arrivals import ClosedLoop, OpenLoop
from upcurve.load.health import ClientHealth
from upcurve.load.limits import Limits, Machine
from upcurve.load.metrics import Goal, point_metrics
from upcurve.load.trace import times
from upcurve.load.verdict import FEW_SAMPLES
from upcurve.load.workload import SyntheticWorkload

HEALTH = ClientHealth(lag_p99_ms=1.0, cpu_s=0.1, wall_s=10.0)


def metrics(traces, *, osl=3, load=None, gpus=1, health=HEALTH, **more):
    workload = SyntheticWorkload.exact(100, osl)
    load = load or ClosedLoop(1, requests=1)
    return point_metrics(traces, health, workload, load, gpus=gpus, **more)


def words_of(point):
    """Return all warnings but that of a small sample, which all points here are."""
    return [each for each in point["warnings"] if each != FEW_SAMPLES]


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
        "p99.9": None,
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
    assert words_of(point) == []
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
    assert "the server counts 1 input tokens more than were sent (nominal 100)" in text
    assert "differs from the token ids" in text


def test_missing_usage_is_told_and_counted_from_the_stream():
    point = metrics([trace(output_tokens=None, prompt_tokens=None)])
    assert point["output_tput_per_gpu"] == pytest.approx(3 / 0.03)
    assert point["input_tput_per_gpu"] == pytest.approx(100 / 0.03)
    assert any("no usage" in words for words in point["warnings"])


def test_a_prefix_cache_is_told():
    point = metrics([trace(cached_tokens=64)])
    assert any("64 % of the input came from" in words for words in point["warnings"])


MACHINE = Machine("node", "cpu", 2, "3.11", "0", 1)


def calibrated(chunks_per_s):
    return Limits(MACHINE, "2026-11-23T00:00:00+00:00", chunks_per_s, 256)


@pytest.mark.parametrize(
    ("health", "limits", "kinds"),
    [
        (ClientHealth(1.0, 5.0, 10.0, busy=0.49), None, []),
        (ClientHealth(1.0, 5.0, 10.0, busy=0.51), None, ["client_load"]),
        (ClientHealth(10.1, 0.1, 10.0), None, ["loop_lag"]),
        # 3 chunks in 30 ms are 100 a second.
        (ClientHealth(1.0, 5.0, 10.0, busy=0.9), calibrated(201), []),
        (ClientHealth(1.0, 5.0, 10.0, busy=0.1), calibrated(199), ["client_load"]),
    ],
)
def test_a_busy_client_is_marked(health, limits, kinds):
    point = metrics([trace()], health=health, limits=limits)
    assert [each["kind"] for each in point["client"]["marks"]] == kinds
    assert point["client"]["trusted"] is not bool(kinds)
    assert any("not to be trusted" in words for words in point["warnings"]) is bool(kinds)
    assert (point["client"]["calibration"] is None) is (limits is None)


def test_one_output_token_has_no_pace():
    point = metrics([trace(chunks=((10, 1),))], osl=1)
    assert point["interactivity"] is None
    assert point["tpot_ms"]["count"] == 0
    assert point["ttft_ms"]["p50"] == 10


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
    assert words_of(point) == []


def test_an_answer_in_one_piece_has_no_pace():
    point = metrics([trace(chunks=((10, 1), (10, 1), (10, 1)))])
    assert point["interactivity"] is None
    assert point["tput_per_gpu"] == pytest.approx(103 / 0.01)
    assert any("came in one piece" in words for words in point["warnings"])


@pytest.mark.parametrize(("idle", "kinds"), [(3, []), (5, ["delivered_concurrency"])])
def test_a_load_that_falls_two_percent_short_is_marked(idle, kinds):
    # Two requests of 100 ms with an empty slot between them.
    first = trace(sent=0, chunks=((50, 1), (75, 1), (100, 1)))
    later = 100 + idle
    second = trace(sent=later, chunks=[(later + each, 1) for each in (50, 75, 100)])
    point = metrics([first, second])
    assert point["delivered_concurrency"] == pytest.approx(200 / (200 + idle))
    assert [each["kind"] for each in point["client"]["marks"]] == kinds


@pytest.mark.parametrize(("late", "kinds"), [(3, []), (5, ["delivered_rate"])])
def test_a_rate_that_falls_two_percent_short_is_marked(late, kinds):
    # Due at 0, 100 and 200 ms; the last one is sent late.
    sent = [0, 100, 200 + late]
    requests = [
        trace(sent=at, scheduled_ns=due * 1_000_000, chunks=((at + 10, 1), (at + 20, 2)))
        for at, due in zip(sent, (0, 100, 200), strict=True)
    ]
    point = metrics(requests, load=OpenLoop(10, requests=3))
    assert point["delivered_share"] == pytest.approx(200 / (200 + late))
    assert [each["kind"] for each in point["client"]["marks"]] == kinds


def test_latency_of_an_open_loop_runs_from_when_a_request_was_due():
    late = trace(sent=40, scheduled_ns=0, chunks=((50, 1), (60, 1), (70, 1)))
    closed, opened = metrics([late]), metrics([late], load=OpenLoop(1, requests=1))
    assert (closed["ttft_ms"]["p50"], opened["ttft_ms"]["p50"]) == (10, 50)
    assert (closed["e2e_ms"]["p50"], opened["e2e_ms"]["p50"]) == (30, 70)
    assert closed["tpot_ms"]["p50"] == opened["tpot_ms"]["p50"] == 10
    assert opened["dispatch_delay_ms"]["max"] == 40
    assert (opened["rate"], closed["rate"]) == (1, None)


def test_goodput_counts_what_keeps_both_limits():
    requests = [
        trace(sent=0, chunks=((10, 1), (20, 1), (30, 1))),
        trace(sent=0, chunks=((40, 1), (50, 1), (60, 1))),
        trace(sent=0, chunks=((10, 1), (60, 1), (100, 1))),
        failed(sent=0, ended=9),
    ]
    found = metrics(requests, goal=Goal(ttft_ms=20, tpot_ms=20))["goodput"]
    assert found["share"] == 1 / 4
    assert found["requests_per_s"] == pytest.approx(1 / 0.1)
    assert metrics(requests, goal=Goal(ttft_ms=20))["goodput"]["share"] == 2 / 4
    assert metrics(requests)["goodput"] is None


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"ttft_ms": 0.0},
        {"ttft_ms": 5, "tpot_ms": -1},
        {"ttft_ms": float("nan")},
        {"ttft_ms": 5, "tpot_ms": float("inf")},
    ],
)
def test_goals_that_are_none(limits):
    with pytest.raises(InputError, match="goodput"):
        Goal(**limits)


def test_the_slow_user_is_in_a_low_percentile_of_interactivity():
    requests = [
        trace(stream=n, chunks=((10, 1), (10 + pace, 1)))
        for n, pace in enumerate([10] * 85 + [50] * 15)
    ]
    point = metrics(requests, osl=2)
    users = point["interactivity_per_user"]
    assert users["p50"] == point["interactivity"] == pytest.approx(100)
    assert users["min"] == pytest.approx(20)
    assert 20 <= users["p10"] <= 30
    assert users["p1"] is None  # 100 users do not carry it


def test_the_steady_state_has_figures_of_its_own():
    # Stream 0 answers alone for 100 ms, then both streams for 100 ms, slower.
    requests = [
        trace(stream=0, sent=0, chunks=((50, 1), (75, 1), (100, 1))),
        trace(stream=0, sent=100, chunks=((120, 1), (160, 1), (200, 1))),
        trace(stream=1, sent=100, chunks=((120, 1), (160, 1), (200, 1))),
    ]
    point = metrics(requests, load=ClosedLoop(2, requests=3))
    steady = point["steady_state"]
    assert (steady["start_s"], steady["end_s"]) == (0.1, 0.2)
    assert steady["output_tput_per_gpu"] == pytest.approx(6 / 0.1)
    assert point["output_tput_per_gpu"] == pytest.approx(9 / 0.2)
    assert (steady["ttft_ms"]["count"], steady["ttft_ms"]["p50"]) == (2, 20)
    assert steady["tpot_ms"]["p50"] == 40


@given(answers, st.integers(-(10**9), 10**9).map(lambda us: us * 1000))
def test_the_clock_has_no_zero(answer, shift):
    names = ("scheduled_ns", "sent_ns", "ended_ns", "first_byte_ns", "first_content_ns", "last_ns")
    later = replace(
        answer,
        chunk_ns=times(each + shift for each in answer.chunk_ns),
        **{name: getattr(answer, name) + shift for name in names},
    )
    osl = answer.output_tokens
    assert metrics([later], osl=osl) == metrics([answer], osl=osl)
