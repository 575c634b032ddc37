"""What happens when there is too much: of requests, of text."""

import threading
from contextlib import ExitStack

import openai
import pytest

from . import patient
from .running import MODEL, RUNNING, Running, until

BODY = {"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 4, "ignore_eos": True}


@pytest.fixture(scope="module")
def short(checkpoint):
    """A server where two may wait."""
    with Running(checkpoint, max_waiting_requests=2) as running:
        yield running


def post(server, **change):
    return patient.post(f"{server.url}/v1/completions", json={**BODY, **change})


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue(short, stream):
    short.gate.allow(0)
    with short.post("/v1/completions", {**BODY, "prompt": [[1]] * (RUNNING + 1)}) as first:
        until(lambda: short.bridge.open_requests == RUNNING + 1, "queued")
        refused = post(short, n=2, stream=stream)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert short.value("requests_refused_total") >= 2
        error = refused.json()["error"]
        assert error["type"] == "rate_limit_error"
        assert error["code"] == "rate_limit_exceeded"
        assert f"{RUNNING + 1} of {RUNNING + 2}" in error["message"]
        assert "\n" not in error["message"]
        assert short.bridge.open_requests == RUNNING + 1
        with short.post("/v1/completions", BODY) as second:
            until(lambda: short.bridge.open_requests == RUNNING + 2, "queued")
            with short.client() as client, pytest.raises(openai.RateLimitError):
                client.completions.create(model=MODEL, prompt="a")
            short.gate.allow(float("inf"))
            for connection in (first, second):
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    short.idle()
    assert post(short, stream=stream).status_code == 200


def test_more_choices_than_the_queue_holds_are_no_matter_of_time(short):
    answer = post(short, n=RUNNING + 3)
    assert answer.status_code == 400
    assert f"{RUNNING + 2} at most" in answer.json()["error"]["message"]
    assert post(short, n=RUNNING + 2).status_code == 200


def test_a_burst_is_never_over_the_limit(short):
    short.gate.allow(0)
    with ExitStack() as stack:
        burst = [stack.enter_context(short.post("/v1/completions", BODY)) for _ in range(20)]
        refused = []
        for connection in burst:
            connection.setblocking(False)

        def count():
            for connection in burst:
                try:
                    refused.append(connection.recv(65536))
                except BlockingIOError:
                    continue
            return len(refused) == 20 - RUNNING - 2

        until(count, "refused")
        assert all(each.startswith(b"HTTP/1.1 429") for each in refused)
        assert short.bridge.open_requests == RUNNING + 2
        short.gate.allow(float("inf"))
        short.idle()


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_others_go_on_while_a_long_text_is_tokenised(server, monkeypatch, path):
    encode, begun, go_on = server.tokenizer.encode, threading.Event(), threading.Event()

    def slow(text, **options):
        begun.set()
        assert go_on.wait(60)
        return encode(text, **options)

    monkeypatch.setattr(server.tokenizer, "encode", slow)
    body = {"model": MODEL, "max_tokens": 1}
    body |= (
        {"messages": [{"role": "user", "content": "long"}]} if "chat" in path else {"prompt": "a"}
    )
    with server.post(path, body) as connection:
        try:
            assert begun.wait(60)
            assert post(server).status_code == 200
        finally:
            go_on.set()
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
