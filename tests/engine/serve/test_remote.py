"""The engine in a process of its own: tokens, every way to end, and who ends with whom."""

import http.client
import json
import multiprocessing
import os
import resource
import signal
import socket
from contextlib import contextmanager
from functools import partial

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.processes import lives
from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.event import Event, TokenLogprobs
from upcurve.engine.execute.fake_device import known_token
from upcurve.engine.schedule.request import Request, SamplingParameters
from upcurve.engine.serve import remote
from upcurve.engine.serve.engine_process import Outbox
from upcurve.engine.serve.messages import (
    Frames,
    Status,
    Step,
    Submit,
    decode_command,
    decode_report,
    frame,
)
from upcurve.engine.serve.remote import EngineEndedError, RemoteEngine

from . import patient
from .engines import VOCABULARY, break_down, build_fake, parent, refuse
from .running import MODEL, Serving, until


@contextmanager
def serving(build):
    with RemoteEngine(build) as engine:
        engine.wait()
        with Serving(engine) as server:
            server.process = engine.process
            yield server


@pytest.fixture(scope="module")
def server():
    with serving(build_fake) as running:
        yield running


def body(prompt, tokens, **options):
    return {
        "model": MODEL,
        "prompt": prompt,
        "max_tokens": tokens,
        "ignore_eos": True,
        "return_token_ids": True,
        **options,
    }


def expected(prompt, tokens):
    request = Request("any", prompt, SamplingParameters(max_tokens=tokens))
    return [known_token(request, len(prompt) + each, VOCABULARY) for each in range(tokens)]


def events(answer):
    """Return the JSON of a stream's events, without its [DONE]."""
    return [
        json.loads(line.removeprefix("data: "))
        for line in answer.splitlines()
        if line.startswith("data: {")
    ]


def test_tokens_of_streams_and_whole_answers(server):
    prompts = [[1, 2, 3], [500], list(range(300))]
    whole = patient.post(f"{server.url}/v1/completions", json=body(prompts, 20)).json()
    assert [each["token_ids"] for each in whole["choices"]] == [expected(p, 20) for p in prompts]
    stream = patient.post(f"{server.url}/v1/completions", json=body(prompts, 20, stream=True)).text
    assert stream.endswith("data: [DONE]\n\n")
    for index, prompt in enumerate(prompts):
        mine = [each["choices"][0] for each in events(stream)]
        mine = [each for each in mine if each["index"] == index]
        # Each token is an event of its own.
        assert [each["token_ids"] for each in mine] == [[each] for each in expected(prompt, 20)]
        assert [each["finish_reason"] for each in mine] == [None] * 19 + ["length"]


def test_the_gauges_come_with_the_steps(server):
    until(lambda: server.value("state_slots_used") == 0, "idle")
    assert server.value("kv_pages_total") == 64 * 64
    steps = server.value("step_seconds_count")
    with server.post("/v1/completions", body([1] * 20, 50_000)):
        until(lambda: server.value("state_slots_used") == 1, "running")
        assert server.value("kv_pages_used") >= 2
        assert server.value("requests_running") == 1
    until(lambda: server.value("state_slots_used") == 0, "aborted")
    assert server.value("kv_pages_used") == 0
    assert server.value("step_seconds_count") > steps


def test_signals_are_for_the_http_side(server):
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(server.process.pid, number)
    assert patient.post(f"{server.url}/v1/completions", json=body([1], 2)).status_code == 200


def test_a_thousand_connections(server):
    """All are open at once, and each is answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        # Both ends are in this process.
        most = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(1000)]
    try:
        raw = json.dumps(body([7], 2)).encode()
        for connection in connections:
            head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            connection.sendall(head % len(raw) + raw)
        for connection in connections:
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert json.load(answer)["choices"][0]["token_ids"] == expected([7], 2)
    finally:
        for connection in connections:
            connection.close()


def test_a_reader_that_comes_late_gets_all_and_holds_up_nobody(server):
    lengths = server.value("requests_finished_total", reason="length")
    prompts = [[each + 1] for each in range(32)]
    # 12 MB: more than the buffers of a connection hold.
    with server.post("/v1/completions", body(prompts, 2000, stream=True)) as connection:
        until(
            lambda: server.value("requests_finished_total", reason="length") == lengths + 32,
            "finished",
        )
        assert patient.post(f"{server.url}/v1/completions", json=body([1], 2)).status_code == 200
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        got = [each["choices"][0] for each in events(answer.read().decode())]
    for index, prompt in enumerate(prompts):
        mine = [each["token_ids"][0] for each in got if each["index"] == index]
        assert mine == expected(prompt, 2000)


def test_an_engine_that_is_killed_ends_every_request():
    with serving(partial(build_fake, 0.001)) as server:
        told = []
        server.bridge.on_failure = lambda: told.append(True)
        with (
            server.post("/v1/completions", body([1], 50_000, stream=True)) as stream,
            server.post("/v1/completions", body([1], 50_000)) as whole,
        ):
            until(lambda: server.value("state_slots_used") == 2, "running")
            # Its first token is sent, so that the stream has begun.
            begun = stream.recv(1, socket.MSG_PEEK)
            server.process.kill()
            answers = [http.client.HTTPResponse(each) for each in (stream, whole)]
            for answer in answers:
                answer.begin()
            last = events(answers[0].read().decode())[-1]
            error = json.load(answers[1])
        assert begun
        assert [each.status for each in answers] == [200, 500]
        for each in (last, error):
            assert "signal SIGKILL" in each["error"]["message"]
        # The server is told after its clients.
        until(lambda: told == [True], "told")
        assert server.value("requests_finished_total", reason="failed") == 2
        health = patient.get(f"{server.url}/health")
        assert health.status_code == 503
        assert "signal SIGKILL" in health.json()["error"]["message"]
        assert patient.post(f"{server.url}/v1/completions", json=body([1], 2)).status_code == 503


def test_an_engine_that_cannot_be_built_says_why():
    with RemoteEngine(refuse) as engine, pytest.raises(EngineInputError) as error:
        engine.wait()
    assert str(error.value) == "model: it is too large; take another"
    assert error.value.field == "model"


def test_a_process_that_ends_while_it_loads():
    with RemoteEngine(break_down) as engine, pytest.raises(EngineEndedError, match="exit code 7"):
        engine.wait()


def test_the_engine_ends_with_the_process_that_started_it():
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=parent, args=(there,))
    process.start()
    engine = psutil.Process(here.recv())
    process.kill()
    process.join()

    until(lambda: not lives(engine), "gone")


def test_a_late_reader_of_reports_holds_up_nobody():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outbox = Outbox(ours)
        sent = [bytes([each % 256]) * 100_000 for each in range(100)]
        for each in sent:
            # More than the socket takes: this returns all the same.
            outbox.put(each)
        received = b""
        while len(received) < 100 * 100_000:
            received += theirs.recv(2**20)
    assert received == b"".join(sent)


@given(st.lists(st.binary(max_size=300)), st.lists(st.integers(1, 50)))
def test_frames_are_cut_wherever_they_are_split(bodies, sizes):
    data = b"".join(len(each).to_bytes(4, "little") + each for each in bodies)
    frames, got = Frames(), []
    for size in sizes:
        part, data = data[:size], data[size:]
        got += frames.feed(part)
    assert got + frames.feed(data) == bodies


LOGPROBS = TokenLogprobs(-0.5, ((3, -0.5), (1, -1.25)))


def test_commands_and_reports_arrive_as_they_were_sent():
    sampling = SamplingParameters(5, seed=-(2**63), stop_token_ids=(1, 2), logprobs=2)
    request = Request("a", [0, 248_319], sampling)
    command = decode_command(frame(Submit.of(request))[4:])
    assert command.request().prompt == request.prompt
    assert command.request().sampling == sampling
    sent = [
        Event("a", 5),
        Event("b", 6, LOGPROBS),
        Event("c", None, finish="failed", error="broken"),
        Event("d", 7, finish="stop"),
    ]
    step = decode_report(frame(Step.of(1.5, None, Status(1, 2, 3, 4), sent))[4:])
    assert list(step.events()) == sent
    assert (step.at, step.seconds, step.status) == (1.5, None, Status(1, 2, 3, 4))


def test_an_engine_that_does_not_end_is_told_once_and_killed(monkeypatch):
    """Whoever waits for this process waits no longer than for that."""
    codes = []

    def join(processes, seconds):
        for process in processes:
            process.join(60)
            codes.append(process.exitcode)

    monkeypatch.setattr(remote, "EXIT_SECONDS", 0.1)
    monkeypatch.setattr(remote, "join", join)
    with serving(build_fake) as running:
        os.kill(running.process.pid, signal.SIGSTOP)
    assert set(codes) == {-signal.SIGKILL}
