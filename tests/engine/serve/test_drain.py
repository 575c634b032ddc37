"""SIGTERM: what runs may finish for a while, nothing new begins."""

import json
from http.client import HTTPResponse
from types import SimpleNamespace

import pytest

from . import patient
from .running import MODEL, Running, until

BODY = {"model": MODEL, "prompt": [1, 2], "max_tokens": 20, "ignore_eos": True}


def answer_of(connection):
    answer = HTTPResponse(connection)
    answer.begin()
    return answer


def test_a_running_request_finishes_and_new_ones_are_refused(checkpoint):
    closed = []
    watching = SimpleNamespace(close=lambda: closed.append(True))
    with Running(checkpoint, watch=lambda: watching) as running:
        running.gate.allow(3)
        with running.post("/v1/completions", BODY) as connection:
            until(lambda: running.gate.holding, "held")
            assert not closed
            running.drain()
            # From here on no process that helps is started anew.
            assert closed
            for refused in (
                patient.get(f"{running.url}/health"),
                patient.post(f"{running.url}/v1/completions", json=BODY),
            ):
                assert refused.status_code == 503
                assert "draining" in refused.json()["error"]["message"]
                assert int(refused.headers["retry-after"]) > 0
            assert patient.get(f"{running.url}/metrics").status_code == 200
            running.gate.allow(float("inf"))
            assert json.load(answer_of(connection))["usage"]["completion_tokens"] == 20
            running.thread.join(60)
            assert not running.thread.is_alive()
    running.idle()


def test_an_idle_server_ends_at_once(checkpoint):
    with Running(checkpoint) as running:
        running.http.loop.call_soon_threadsafe(running.http.drain)
        running.thread.join(60)
        assert not running.thread.is_alive()


@pytest.mark.parametrize("twice", [False, True])
def test_what_does_not_finish_in_time_is_aborted(checkpoint, twice):
    """The time is over, or the signal comes a second time."""
    with Running(checkpoint, drain_seconds=1000 if twice else 0) as running:
        running.gate.allow(3)
        with running.post("/v1/completions", BODY) as connection:
            until(lambda: running.gate.holding, "held")
            running.drain()
            if twice:
                running.http.loop.call_soon_threadsafe(running.http.drain)
            answer = answer_of(connection)
            assert answer.status == 503
            assert "stopping" in json.load(answer)["error"]["message"]
    running.idle()
