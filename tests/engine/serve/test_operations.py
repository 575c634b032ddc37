"""Models, health, metrics, and what an engine that fails looks like from outside."""

import threading

import openai
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from . import patient
from .running import CONTEXT, MODEL, RUNNING, Running, until

BODY = {"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 4, "ignore_eos": True}


def scrape(server):
    answer = patient.get(f"{server.url}/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_models(client):
    (model,) = client.models.list().data
    assert model.id == MODEL
    assert model.max_model_len == CONTEXT
    assert client.models.retrieve(MODEL) == model


def test_health(server):
    answer = patient.get(f"{server.url}/health")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok"}


def test_metrics_count_tokens_and_ends(server):
    before = scrape(server)
    assert patient.post(f"{server.url}/v1/completions", json=BODY).status_code == 200
    after = scrape(server)

    def moved(name, *labels):
        name = f"upcurve_{name}"
        return after[(name, *labels)] - before[(name, *labels)]

    assert moved("requests_finished_total", ("reason", "length")) == 1
    assert moved("requests_finished_total", ("reason", "aborted")) == 0
    assert moved("prompt_tokens_total") == 3
    assert moved("generated_tokens_total") == 4
    assert moved("time_to_first_token_seconds_count") == 1
    assert moved("inter_token_latency_seconds_count") == 3
    assert moved("time_to_first_token_seconds_sum") > 0
    assert moved("step_seconds_count") == 4
    assert moved("step_tokens_sum") == 3 + 3
    assert moved("step_requests_count") == 4
    assert moved("step_requests_sum") == 4
    assert moved("step_seconds_sum") > 0


def test_gauges_follow_the_engine(server):
    idle = scrape(server)
    assert idle["upcurve_state_slots_total",] == RUNNING
    assert idle["upcurve_kv_pages_total",] == RUNNING * CONTEXT / 16
    names = ("requests_running", "requests_waiting", "kv_pages_used", "state_slots_used")
    assert [idle[f"upcurve_{name}",] for name in names] == [0, 0, 0, 0]
    server.gate.allow(0)
    prompts = [[1, 2]] * (RUNNING + 2)
    with server.post("/v1/completions", {**BODY, "prompt": prompts, "max_tokens": 20}):
        server.submitted(RUNNING + 2)
        server.gate.allow(2)
        until(lambda: server.gate.holding, "held")
        busy = scrape(server)
        assert [busy[f"upcurve_{name}",] for name in names] == [RUNNING, 2, RUNNING, RUNNING]


@pytest.fixture
def failing(checkpoint):
    with Running(checkpoint) as running:
        yield running


def break_forward(server, monkeypatch):
    def forward(*_):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(server.engine.device.model, "forward", forward)


def test_a_failed_step_fails_its_requests_and_the_engine_goes_on(failing, monkeypatch):
    with failing.client() as client:
        with monkeypatch.context() as broken:
            break_forward(failing, broken)
            with pytest.raises(openai.InternalServerError, match="no such luck"):
                client.completions.create(model=MODEL, prompt=[1])
            # Nothing was sent before the failure, so a stream fails with a status too.
            with pytest.raises(openai.InternalServerError, match="no such luck"):
                client.completions.create(model=MODEL, prompt=[1], stream=True)
        assert client.completions.create(model=MODEL, prompt=[1]).usage.prompt_tokens == 1
        assert failing.value("requests_finished_total", reason="failed") == 2
    failing.idle()


def test_logits_that_are_never_finite_turn_health_red_until_they_are(failing, monkeypatch):
    forward = failing.engine.device.model.forward
    with failing.client() as client:
        with monkeypatch.context() as broken:
            broken.setattr(
                failing.engine.device.model, "forward", lambda *args: forward(*args) * torch.nan
            )
            for _ in range(3):
                assert patient.get(f"{failing.url}/health").status_code == 200
                with pytest.raises(openai.InternalServerError, match="not finite"):
                    client.completions.create(model=MODEL, prompt=[1])
            answer = patient.get(f"{failing.url}/health")
            assert answer.status_code == 503
            assert "no step gives finite ones" in answer.json()["error"]["message"]
        client.completions.create(model=MODEL, prompt=[1])
    assert patient.get(f"{failing.url}/health").status_code == 200
    failing.idle()


@pytest.mark.parametrize("together", [False, True])
def test_a_failure_in_the_middle_of_a_stream(failing, monkeypatch, together):
    """Tokens before the failure arrive, also where HTTP is told of all of it at once."""
    failing.gate.allow(0)
    with failing.post("/v1/completions", {**BODY, "stream": True}) as connection:
        until(lambda: failing.gate.holding, "held")
        told = threading.Event()
        if together:
            failing.local._event_loop.call_soon_threadsafe(told.wait)
        failing.gate.allow(2)
        until(lambda: failing.gate.holding and failing.gate.taken == 2, "two steps on")
        break_forward(failing, monkeypatch)
        failing.gate.allow(float("inf"))
        until(lambda: not failing.engine.has_work, "failed")
        told.set()
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += connection.recv(65536)
    assert received.startswith(b"HTTP/1.1 200")
    assert received.count(b'"text_completion"') == 2
    assert received.count(b"no such luck") == 1
    assert b"[DONE]" not in received


def test_an_engine_that_is_given_up(failing, monkeypatch):
    break_forward(failing, monkeypatch)
    told = []
    failing.bridge.on_failure = lambda: told.append(True)
    for _ in range(3):
        assert patient.post(f"{failing.url}/v1/completions", json=BODY).status_code == 500
    until(lambda: told, "given up")
    health = patient.get(f"{failing.url}/health")
    assert health.status_code == 503
    assert health.json()["error"]["type"] == "server_error"
    assert "3 steps in a row failed" in health.json()["error"]["message"]
    assert patient.post(f"{failing.url}/v1/completions", json=BODY).status_code == 503
    assert told == [True]
    failing.idle()


def test_streams_end_when_the_server_stops(checkpoint):
    with Running(checkpoint) as running, running.client() as client:
        running.gate.allow(2)
        body = {**BODY, "max_tokens": 200}
        extra = {"ignore_eos": body.pop("ignore_eos")}
        stream = client.completions.create(**body, stream=True, extra_body=extra)
        until(lambda: running.gate.holding, "held")
        running.http.should_exit = True
        with pytest.raises(openai.APIError, match="stopping"):
            list(stream)
    running.idle()
