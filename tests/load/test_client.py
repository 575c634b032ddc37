from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import socket
import time
from collections import Counter
from statistics import median

import numpy as np
import orjson
import pytest

from tests.load import simulated
from upcurve.errors import InputError
from upcurve.load import pool
from upcurve.load.arrivals import ClosedLoop
from upcurve.load.client import ClientError, LoadClient
from upcurve.load.driver import Driver, Share
from upcurve.load.health import HealthProbe
from upcurve.load.known_server import Behaviour, Fault, KnownServer, known_server_process
from upcurve.load.metrics import point_metrics
from upcurve.load.probe import probe
from upcurve.load.target import Target
from upcurve.load.workload import SyntheticWorkload

exact = SyntheticWorkload.exact

FAST = {"first_ms": 5.0, "interval_ms": 1.0}


async def drive(target, workload, load, *, warmup=None, timeout_s=30.0):
    """Send warm-up and load from this very event loop; return traces and health."""
    driver = Driver(target, timeout_s, [0] * 4)
    traces = []
    warm = ClosedLoop(load.concurrency, requests=warmup or load.concurrency)
    try:
        for phase, part in (("warm-up", warm), ("measured", load)):
            share = Share(part, 0, 1)
            payloads = driver.prepare(workload, phase, share)
            watch = HealthProbe()
            traces += await driver.run(payloads, share, time.perf_counter_ns())
            health = watch.stop()
    finally:
        driver.close()
    return traces, health


def against(behaviour, workload, *, concurrency, requests, model="known", key=None, **more):
    """Measure a server in this very process, in simulated time.

    Return target, traces, figures, truth.
    """
    load = ClosedLoop(concurrency, requests=requests)

    async def run():
        async with KnownServer(behaviour) as server:
            target = await probe(Target(server.base_url, model, key), workload)
            probes = len(server.served)
            traces, health = await drive(target, workload, load, **more)
            return target, traces, health, server.served[probes:]

    target, traces, health, served = simulated.run(run())
    figures = point_metrics(traces, health, workload, load, gpus=1)
    return target, traces, figures, served


def truth(served):
    """Return what the server did: TTFT and TPOT of each request, in ms."""
    ttft = [(each.written_ns[0] - each.arrived_ns) / 1e6 for each in served]
    tpot = [
        (each.written_ns[-1] - each.written_ns[0])
        / 1e6
        / (sum(each.written_tokens) - each.written_tokens[0])
        for each in served
    ]
    return ttft, tpot


@pytest.mark.parametrize(
    ("concurrency", "tokens_per_chunk"),
    [(1, 1), (16, 1), (16, 4), (64, 1)],
    ids=["1", "16", "coalesced", "64"],
)
def test_against_the_truth(concurrency, tokens_per_chunk):
    behaviour = Behaviour(first_ms=60, interval_ms=10, tokens_per_chunk=tokens_per_chunk)
    requests = 4 * concurrency
    _, _, figures, served = against(
        behaviour, exact(isl=64, osl=32), concurrency=concurrency, requests=requests
    )
    measured = served[-requests:]
    ttft, tpot = truth(measured)

    assert (figures["requests"], figures["failed"]) == (requests, 0)
    assert figures["ttft_ms"]["p50"] == pytest.approx(median(ttft), abs=1)
    assert figures["tpot_ms"]["p50"] == pytest.approx(median(tpot), rel=0.01)
    assert figures["itl_ms"]["mean"] == pytest.approx(sum(tpot) / len(tpot), rel=0.01)
    assert figures["interactivity"] == pytest.approx(1000 / median(tpot), rel=0.01)
    assert figures["chunk_coalescing"] == tokens_per_chunk
    assert figures["output_length_ok"]
    assert max(each.in_flight for each in measured) == concurrency
    assert figures["delivered_share"] > 0.98
    span = (max(e.ended_ns for e in measured) - min(e.arrived_ns for e in measured)) / 1e9
    assert figures["output_tput_per_gpu"] == pytest.approx(32 * requests / span, rel=0.01)
    assert figures["input_tput_per_gpu"] == pytest.approx(64 * requests / span, rel=0.01)
    steady = figures["steady_state"]
    assert steady["end_s"] - steady["start_s"] > 0.6 * figures["duration_s"]
    assert steady["output_tput_per_gpu"] == pytest.approx(figures["output_tput_per_gpu"], rel=0.15)


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_of_their_own_against_the_truth(workers):
    """A busy machine is late by any time, on either side; it turns no order round."""
    workload = exact(isl=64, osl=32)
    load = ClosedLoop(16, requests=64)
    server = known_server_process(Behaviour(first_ms=60, interval_ms=10))
    with server as (base_url, served), LoadClient(workers) as client:
        target = client.probe(Target(base_url, "known"), workload)
        found = client.measure(target, workload, load)
    assert {each.failure for each in found.traces} == {None}
    by_prompt = {each.prompt_digest: each for each in served}
    measured = {each.index: each for each in found.traces if not each.warm_up}
    assert sorted(measured) == list(range(64))
    lags = []
    for index, trace in measured.items():
        prompt = workload.prompt("measured", index).content.tolist()
        true = by_prompt[hashlib.sha256(orjson.dumps(prompt)).hexdigest()]
        assert trace.sent_ns <= true.arrived_ns
        assert sum(trace.chunk_tokens) == true.tokens == 32
        # Each token's time is that of the read that brought it.
        read_ns = np.repeat(trace.chunk_ns, trace.chunk_tokens)
        lags += (read_ns - np.array(true.written_ns)).tolist()
    assert min(lags) >= 0
    assert min(lags) < 10e6
    assert max(each.in_flight for each in served[-64:]) <= 16


def test_requests_are_what_was_asked_for():
    workload = exact(isl=17, osl=5)
    _, traces, figures, served = against(
        Behaviour(**FAST), workload, concurrency=3, requests=9, warmup=4
    )
    assert {each.prompt_tokens for each in served} == {17}
    assert len({each.prompt_digest for each in served}) == len(served) == 13
    assert [each.warm_up for each in traces].count(True) == 4
    assert Counter(each.stream for each in traces).keys() == {0, 1, 2}
    assert figures["output_length_ok"]
    assert all(
        each.scheduled_ns <= each.sent_ns < each.first_byte_ns <= each.first_content_ns
        and each.first_content_ns < each.last_ns <= each.ended_ns
        for each in traces
    )
    # All measured requests went over connections that the warm-up opened.
    assert all(each.warm for each in served[4:])
    assert max(each.in_flight for each in served) == 3


def test_points_on_one_server_share_no_prompt():
    async def run():
        async with KnownServer(Behaviour(**FAST)) as server:
            target = Target(server.base_url, "known")
            for salt in ("c2", "c4"):
                await drive(target, exact(8, 2, salt=salt), ClosedLoop(2, requests=8))
            return server.served

    served = simulated.run(run())
    assert len({each.prompt_digest for each in served}) == len(served) == 20


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ("http_429", "http_4xx"),
        ("http_500", "http_5xx"),
        ("error_event", "error_event"),
        ("cut", "cut"),
        ("no_done", "cut"),
        ("garbage", "malformed"),
        ("empty", "malformed"),
        ("short", "short_output"),
        ("long", "long_output"),
    ],
)
def test_every_fault_is_accounted_for(fault, failure):
    behaviour = Behaviour(**FAST, faults=(Fault(fault, every=3),))
    _, traces, figures, served = against(behaviour, exact(8, 4), concurrency=2, requests=10)
    broken = [each.fault for each in served[2:]].count(fault)
    assert broken >= 3
    assert figures["failures"] == {failure: broken}
    assert figures["failed"] == broken
    assert figures["ttft_ms"]["count"] == figures["e2e_ms"]["count"] == 10 - broken
    good = [each for each in traces if not each.warm_up and not each.failure]
    assert [sum(each.chunk_tokens) for each in good] == [4] * (10 - broken)
    assert 0 < figures["itl_ms"]["count"] <= 3 * (10 - broken)
    assert all(each.detail for each in traces if each.failure)
    assert any(f"{broken} of 10 requests failed: {failure}" in each for each in figures["warnings"])


def test_a_server_that_lies_in_many_ways():
    faults = (Fault("http_500", every=5), Fault("cut", every=7), Fault("short", every=3))
    _, _, figures, served = against(
        Behaviour(**FAST, faults=faults), exact(8, 6), concurrency=4, requests=40
    )
    done = Counter(each.fault for each in served[4:])
    assert figures["failures"] == {
        "http_5xx": done["http_500"],
        "cut": done["cut"],
        "short_output": done["short"],
    }
    assert done["short"] > 0
    assert not figures["output_length_ok"]
    said = f"{done['short']} of 40 requests failed: short_output (3 tokens, 6 were asked for)"
    assert said in figures["warnings"]
    assert figures["ttft_ms"]["count"] == done[None]
    output = figures["output_tput_per_gpu"] * figures["duration_s"]
    assert output == pytest.approx(6 * done[None])


def test_a_length_that_nobody_counts_is_told_and_no_failure():
    unknown = Behaviour(**FAST, faults=(Fault("short", every=2),), ids="ignored", usage=False)
    _, _, figures, served = against(unknown, exact(8, 6), concurrency=1, requests=4)
    assert "short" in [each.fault for each in served[1:]]
    assert (figures["failed"], figures["output_length_ok"]) == (0, False)
    text = " | ".join(figures["warnings"])
    assert "no usage" in text
    assert "3 tokens, 6 were asked for" in text


def test_answers_that_come_in_one_piece_have_no_pace():
    buffered = Behaviour(**FAST, faults=(Fault("burst", every=1),))
    _, _, figures, _ = against(buffered, exact(8, 6), concurrency=2, requests=4)
    assert (figures["failed"], figures["interactivity"]) == (0, None)
    assert figures["chunk_coalescing"] == 6.0
    assert figures["tpot_ms"]["count"] == figures["itl_ms"]["count"] == 0
    assert any("came in one piece" in words for words in figures["warnings"])


def test_a_warm_up_that_fails_is_told():
    # The probe is the first request, the warm-up the second.
    failing = Behaviour(**FAST, faults=(Fault("http_500", every=2),))
    _, _, figures, _ = against(failing, exact(8, 4), concurrency=1, requests=1)
    assert figures["failed"] == 0
    said = "1 of 1 warm-up requests failed: http_5xx (HTTP 500: a fault as ordered)"
    assert said in figures["warnings"]


def test_a_stall_is_in_the_gaps_and_beyond_the_timeout_a_failure():
    stalling = Behaviour(5, 20, faults=(Fault("stall", every=4, stall_ms=300),))
    _, _, figures, _ = against(stalling, exact(8, 4), concurrency=1, requests=4)
    assert figures["failed"] == 0
    assert 290 < figures["itl_ms"]["max"] < 2000
    endless = Behaviour(**FAST, faults=(Fault("stall", every=4, stall_ms=1e6),))
    _, traces, figures, served = against(
        endless, exact(8, 4), concurrency=1, requests=4, timeout_s=0.7
    )
    assert figures["failures"] == {"timeout": 1}
    assert [each.fault for each in served if each.ended_ns is None] == ["stall"]
    assert next(each.detail for each in traces if each.failure) == "no end within 0.7 s"


def test_a_server_that_dies_fails_what_is_left():
    async def run():
        workload = exact(8, 4)
        async with KnownServer(Behaviour(**FAST)) as server:
            target = await probe(Target(server.base_url, "known"), workload)
        return await drive(target, workload, ClosedLoop(2, requests=4))

    traces, _ = simulated.run(run())
    assert [each.failure for each in traces] == ["connect"] * 6


@pytest.mark.parametrize(("ids", "kept"), [("sent", True), ("ignored", False), ("refused", False)])
def test_servers_that_know_no_token_ids(ids, kept):
    target, traces, figures, _ = against(
        Behaviour(**FAST, ids=ids, tokens_per_chunk=2), exact(8, 8), concurrency=2, requests=4
    )
    assert target.return_token_ids is kept
    assert figures["failed"] == 0
    assert figures["chunk_coalescing"] >= 2
    assert {tuple(each.chunk_tokens) for each in traces} == {(2, 2, 2, 2)}
    assert {each.counted_tokens for each in traces} == {8 if ids == "sent" else None}


def test_the_server_counts_otherwise():
    behaviour = Behaviour(**FAST, extra_prompt_tokens=1, cached_share=0.5)
    _, _, figures, _ = against(behaviour, exact(9, 4), concurrency=1, requests=2)
    text = " | ".join(figures["warnings"])
    assert "the server counts 1 input tokens more than were sent (nominal 9)" in text
    assert "50 % of the input came from the server's prefix cache" in text


def test_a_key_is_sent_and_taken():
    _, _, figures, _ = against(
        Behaviour(**FAST, api_key="k1"), exact(8, 2), key="k1", concurrency=1, requests=1
    )
    assert figures["failed"] == 0


@pytest.mark.parametrize(
    ("behaviour", "model", "key", "field"),
    [
        (Behaviour(api_key="right"), "known", "wrong", "api-key"),
        (Behaviour(api_key="right"), "known", None, "api-key"),
        (Behaviour(), "unknown", None, "model"),
        (Behaviour(context_length=10), "known", None, "workload"),
        (Behaviour(faults=(Fault("http_500", every=1),)), "known", None, "base-url"),
        (Behaviour(ids="refused", context_length=10), "known", None, "workload"),
    ],
)
def test_the_probe_refuses_in_one_line(behaviour, model, key, field):
    with pytest.raises(InputError) as error:
        against(behaviour, exact(8, 4), model=model, key=key, concurrency=1, requests=1)
    assert error.value.field == field
    assert "\n" not in str(error.value)
    assert "right" not in str(error.value)


def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"no server answers at http://127.0.0.1:{port}"):
            asyncio.run(probe(Target(f"http://127.0.0.1:{port}", "m"), exact(8, 4)))


def test_a_host_that_drops_packets(monkeypatch):
    monkeypatch.setattr(pool, "_CONNECT_S", 0.3)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        # The queue of connections holds one: the kernel drops what would be the next.
        with (
            socket.create_connection(address),
            pytest.raises(InputError, match="no server answers at"),
        ):
            asyncio.run(probe(Target(f"http://127.0.0.1:{address[1]}", "m"), exact(8, 4)))


def test_what_answers_is_no_tls():
    async def run():
        async with KnownServer(Behaviour(**FAST)) as server:
            url = server.base_url.replace("http", "https")
            await probe(Target(url, "known"), exact(8, 4))

    with pytest.raises(InputError, match=r"base-url: no TLS connection \(.*SSL_CERT_FILE"):
        asyncio.run(run())


def test_what_answers_is_no_http():
    async def run():
        async def speak(reader, writer):
            await reader.read(10)
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
            writer.close()

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            await probe(Target(f"http://127.0.0.1:{port}", "m"), exact(8, 4))

    with pytest.raises(InputError, match=r"base-url: .* gives no answer"):
        asyncio.run(run())


def test_processes_that_die_are_an_error_and_no_hang():
    server, client = known_server_process(Behaviour(first_ms=5, interval_ms=50)), LoadClient(1)
    with server as (base_url, _), client:
        workload = exact(8, 64)
        target = client.probe(Target(base_url, "known"), workload)

        def kill(_):
            client._workers[0]._process.kill()

        with pytest.raises(ClientError, match="exit code -9"):
            client.measure(target, workload, ClosedLoop(2, requests=4), watch=kill)
        # The next point has processes of its own.
        found = client.measure(target, workload, ClosedLoop(2, requests=2))
    assert [each.failure for each in found.traces] == [None] * 4


def test_who_watches_can_end_a_point():
    class StopError(Exception):
        pass

    def stop(progress):
        if progress.sent:
            raise StopError

    server, client = known_server_process(Behaviour(first_ms=5, interval_ms=50)), LoadClient(2)
    with server as (base_url, _), client:
        workload = exact(8, 64)
        target = client.probe(Target(base_url, "known"), workload)
        with pytest.raises(StopError):
            client.measure(target, workload, ClosedLoop(4, requests=400), watch=stop)
    assert multiprocessing.active_children() == []


def test_progress_comes_to_its_end():
    seen = []
    with known_server_process(Behaviour(**FAST)) as (base_url, _), LoadClient(2) as client:
        workload = exact(8, 2)
        target = client.probe(Target(base_url, "known"), workload)
        found = client.measure(
            target, workload, ClosedLoop(3, requests=7), warmup=1, watch=seen.append
        )
    ends = {each.phase: each for each in seen}
    assert (ends["warm-up"].ended, ends["warm-up"].requests) == (3, 3)
    assert (ends["measured"].ended, ends["measured"].tokens, ends["measured"].failed) == (7, 14, 0)
    assert len(found.traces) == 10
    # Two processes share streams and requests without overlap.
    measured = [each for each in found.traces if not each.warm_up]
    assert sorted(each.index for each in measured) == list(range(7))
    assert {each.stream for each in measured} == {0, 1, 2}


def test_processes_have_a_number():
    with pytest.raises(InputError, match="workers"):
        LoadClient(0)
