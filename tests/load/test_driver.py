from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load import simulated
from upcurve.load import driver
from upcurve.load.arrivals import ClosedLoop, OpenLoop
from upcurve.load.driver import ENDED, FAILED, SENT, TOKENS, Driver, Payloads, Share
from upcurve.load.known_server import Behaviour, Fault, KnownServer
from upcurve.load.target import Target
from upcurve.load.workload import SyntheticWorkload

FAST = Behaviour(first_ms=5, interval_ms=1)
WORKLOAD = SyntheticWorkload.exact(8, 4)


@given(st.integers(1, 20), st.integers(0, 50), st.integers(1, 6))
def test_streams_and_requests_are_dealt_out_once(concurrency, more, workers):
    load = ClosedLoop(concurrency, requests=concurrency + more)
    shares = [Share(load, worker, workers) for worker in range(workers)]
    streams = [stream for share in shares for stream in share.streams]
    assert sorted(streams) == list(range(concurrency))
    indices = [list(share.indices()) for share in shares]
    assert sorted(index for each in indices for index in each) == list(range(concurrency + more))
    for share, mine in zip(shares, indices, strict=True):
        assert {index % concurrency for index in mine} <= set(share.streams)
        assert mine == sorted(mine)


@given(st.integers(1, 60), st.integers(1, 6))
def test_arrivals_are_dealt_out_once(requests, workers):
    load = OpenLoop(50, requests=requests)
    dealt = [each for w in range(workers) for each in Share(load, w, workers).arrivals()]
    assert sorted(dealt) == list(enumerate(load.offsets_ns().tolist()))


@given(st.integers(1, 12), st.integers(1, 8))
def test_places_of_all_processes_are_the_limit(limit, workers):
    shares = [Share(OpenLoop(50, requests=40, limit=limit), w, workers) for w in range(workers)]
    assert sum(share.places for share in shares) == limit
    dealt = [list(share.arrivals()) for share in shares]
    assert sorted(index for mine in dealt for index, _ in mine) == list(range(40))
    # One without a place would wait for ever with what it was dealt.
    assert all(share.places or not mine for share, mine in zip(shares, dealt, strict=True))


def test_requests_are_made_ahead_and_no_more_than_memory_allows(monkeypatch):
    made = []

    class Counting(SyntheticWorkload):
        def prompt(self, phase, index):
            made.append(index)
            return super().prompt(phase, index)

    workload = Counting(WORKLOAD.input_length, WORKLOAD.output_length)
    target = Target("http://h:1", "m")
    monkeypatch.setattr(driver, "_AHEAD_BYTES", 2000)

    async def take():
        payloads = Payloads(target, workload, "measured", iter(range(30)), ahead=4)
        before = len(made)
        taken = [payloads.take()]
        assert len(made) == before  # the next one is made after this one was written
        await asyncio.sleep(0)
        assert len(made) == before + 1
        while (each := payloads.take()) is not None:
            taken.append(each)
            await asyncio.sleep(0)
        return before, taken

    before, taken = asyncio.run(take())
    assert 4 <= before < 30
    assert [index for index, _, _ in taken] == list(range(30))
    assert all(payload.startswith(b"POST /v1/completions HTTP/1.1\r\n") for _, _, payload in taken)


def drive(behaviour, load, workload=WORKLOAD, phase="measured"):
    """Send a load in simulated time; return traces, start, counters and truth."""

    async def run():
        async with KnownServer(behaviour) as server:
            counters = [0] * 4
            one = Driver(Target(server.base_url, "known"), 30.0, counters)
            share = Share(load, 0, 1)
            payloads = one.prepare(workload, phase, share)
            start_ns = time.perf_counter_ns()
            traces = await one.run(payloads, share, start_ns)
            one.close()
            return traces, start_ns, counters, server.served

    return simulated.run(run())


def test_arrivals_are_due_when_they_were_drawn():
    load = OpenLoop(100, requests=40, seed=5)
    traces, start_ns, counters, served = drive(FAST, load)
    due = sorted(trace.scheduled_ns - start_ns for trace in traces)
    assert due == load.offsets_ns().tolist()
    assert all(0 <= trace.sent_ns - trace.scheduled_ns < 1e6 for trace in traces)
    assert sorted(trace.index for trace in traces) == list(range(40))
    assert counters[SENT] == counters[ENDED] == len(served) == 40
    assert (counters[FAILED], counters[TOKENS]) == (0, 160)


def test_who_waits_for_a_place_is_late_and_keeps_the_time_at_which_it_was_due():
    load = OpenLoop(1000, "constant", requests=12, limit=2)
    traces, start_ns, _, served = drive(replace(FAST, first_ms=30), load)
    assert max(each.in_flight for each in served) == 2
    assert sorted(t.scheduled_ns - start_ns for t in traces) == load.offsets_ns().tolist()
    # Six turns of more than 30 ms; all were due within 12.
    last = max(traces, key=lambda trace: trace.sent_ns)
    assert last.sent_ns - last.scheduled_ns > 100e6


def test_after_its_duration_nothing_is_sent_and_what_is_in_flight_is_awaited():
    load = ClosedLoop(3, duration_s=0.2)
    traces, start_ns, _, _ = drive(replace(FAST, interval_ms=20), load)
    assert all(trace.failure is None for trace in traces)
    assert max(trace.sent_ns for trace in traces) < start_ns + 0.2e9 + 20e6
    assert max(trace.ended_ns for trace in traces) > start_ns + 0.2e9
    assert {trace.stream for trace in traces} == {0, 1, 2}


def test_a_refusing_server_is_not_hammered():
    behaviour = replace(FAST, faults=(Fault("http_500", every=1),))
    traces, _, counters, served = drive(behaviour, ClosedLoop(1, duration_s=0.4))
    assert 1 <= len(served) <= 9
    assert counters[FAILED] == len(traces) == len(served)


@pytest.mark.parametrize("phase", ["warm-up", "measured"])
def test_a_trace_knows_its_phase(phase):
    traces, _, _, _ = drive(FAST, ClosedLoop(2, requests=2), phase=phase)
    assert {trace.warm_up for trace in traces} == {phase == "warm-up"}
    assert {(trace.input_tokens, trace.requested_tokens) for trace in traces} == {(8, 4)}
