import contextlib
import json
import socket
import struct

import pytest

from .running import CHUNK, CONTEXT, MODEL, RUNNING, until

LONG = {"model": MODEL, "prompt": [3] * (2 * CHUNK), "max_tokens": 100, "ignore_eos": True}
SHORT = {**LONG, "prompt": [3]}


def reset(connection):
    """Close with RST, as a killed process or a lost machine looks."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def leave_in_phase(server, body, steps, used_slots, leave):
    """Let a client go after some steps; prove that its request is aborted and its memory free."""
    aborted = server.value("requests_finished_total", reason="aborted")
    server.gate.allow(steps)
    with server.post("/v1/completions", body) as connection:
        until(lambda: server.gate.holding, "held")
        assert server.engine.memory.usage().slots == used_slots
        leave(connection)
        until(
            lambda: server.value("requests_finished_total", reason="aborted") == aborted + 1,
            "aborted",
        )
    server.freed_within_a_step()


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["close", "reset"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "steps", "used_slots"),
    [
        pytest.param(LONG, 0, 0, id="waiting"),
        pytest.param(LONG, 1, 1, id="prefill"),
        pytest.param(SHORT, 5, 1, id="decode"),
    ],
)
def test_a_client_that_goes_frees_its_request(server, leave, stream, body, steps, used_slots):
    leave_in_phase(server, {**body, "stream": stream}, steps, used_slots, leave)


def test_all_choices_of_a_call_are_freed(server):
    aborted = server.value("requests_finished_total", reason="aborted")
    prompts = [[i + 1] for i in range(RUNNING + 3)]
    server.gate.allow(0)
    with server.post("/v1/completions", {**SHORT, "prompt": prompts, "stream": True}) as connection:
        server.submitted(RUNNING + 3)
        server.gate.allow(3)
        until(lambda: server.gate.holding, "held")
        assert server.engine.memory.usage().slots == RUNNING
        assert (server.engine.running, server.engine.waiting) == (RUNNING, 3)
        connection.close()
        until(lambda: not server.bridge.open_requests, "aborted")
    server.freed_within_a_step()
    assert server.value("requests_finished_total", reason="aborted") == aborted + RUNNING + 3


def test_others_go_on(server, client):
    """One of two streams is cut; the other's tokens are those that it gives alone."""
    options = {"model": MODEL, "prompt": [7], "max_tokens": 60, "temperature": 0}
    extra = {"ignore_eos": True, "return_token_ids": True}
    alone = client.completions.create(**options, extra_body=extra).choices[0].token_ids
    server.gate.allow(0)
    with server.post("/v1/completions", {**SHORT, "stream": True}) as connection:
        until(lambda: server.gate.holding, "held")
        stream = []
        server.gate.allow(10)
        with client.completions.create(**options, stream=True, extra_body=extra) as chunks:
            connection.close()
            server.gate.allow(float("inf"))
            stream = [chunk.choices[0].token_ids[0] for chunk in chunks]
    assert stream == alone


def test_leaving_in_the_middle_of_a_body(server):
    with server.post("/v1/completions", b"{", **{"X-Filler": "1"}) as connection:
        connection.close()
    raw = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(raw)
    server.idle()


def test_many_clients_that_come_and_go(server, client):
    with contextlib.ExitStack() as stack:
        for i in range(40):
            body = {**(LONG if i % 2 else SHORT), "stream": i % 3 == 0}
            connection = stack.enter_context(server.post("/v1/completions", body))
            if i % 4 == 0:
                reset(connection)
    server.idle()
    answer = client.completions.create(model=MODEL, prompt=[1], max_tokens=2)
    assert answer.usage.prompt_tokens == 1


def test_two_requests_on_one_connection(server):
    raw = json.dumps({**SHORT, "max_tokens": 2}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(raw)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall((head + raw) * 2)
        received = b""
        while received.count(b'"usage"') < 2:
            part = connection.recv(65536)
            assert part
            received += part
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_a_client_that_never_reads_ends_too(server):
    prompts = [[i] for i in range(16)]
    # About 6 MB of events: more than the buffers of a connection hold.
    body = {**SHORT, "max_tokens": CONTEXT - 1, "stream": True, "logprobs": 20}
    lengths = server.value("requests_finished_total", reason="length")
    with server.post("/v1/completions", {**body, "prompt": prompts}):
        until(
            lambda: server.value("requests_finished_total", reason="length") == lengths + 16,
            "finished",
        )
        usage = server.engine.memory.usage()
        assert (usage.pages, usage.slots) == (0, 0)
