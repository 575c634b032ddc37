"""The server of known timing as its clients see it."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
from contextlib import asynccontextmanager

import aiohttp
import pytest
import trustme
import uvloop

from upcurve.errors import InputError
from upcurve.load.known_server import (
    FAULTS,
    Behaviour,
    Fault,
    KnownServer,
    known_server_process,
)

FAST = {"first_ms": 4.0, "interval_ms": 1.0}


def go(behaviour, work, **options):
    """Run work(session, server) against a server in the same event loop; return its result."""

    async def run():
        async with KnownServer(behaviour, **options) as server, session(server) as client:
            return await work(client, server)

    return uvloop.run(run())


@asynccontextmanager
async def session(server, **options):
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(server.base_url, timeout=timeout, **options) as client:
        yield client


def body(**more):
    """Return a request for four tokens; None leaves a field out."""
    standard = {
        "model": "known",
        "prompt": [5, 6, 7],
        "max_tokens": 4,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    return {name: value for name, value in (standard | more).items() if value is not None}


def chat(**more):
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "one two three"}]},
    ]
    return body(**({"prompt": None, "messages": messages} | more))


async def post(client, asked, path="/v1/completions"):
    async with client.post(path, json=asked) as answer:
        text = await answer.text()
        return answer.status, events(text) if answer.content_type.endswith("stream") else text


def events(text):
    datas = [each.removeprefix("data: ") for each in text.split("\n\n") if each]
    return [each if each == "[DONE]" else json.loads(each) for each in datas]


def one(behaviour, asked, path="/v1/completions"):
    """Return status, answer and record of a single request."""

    async def work(client, server):
        return *await post(client, asked, path), server.served

    return go(behaviour, work)


def test_a_stream_of_tokens_on_time():
    behaviour = Behaviour(first_ms=30, interval_ms=3, extra_prompt_tokens=1, cached_share=0.5)
    status, answer, (served,) = one(behaviour, body())
    assert status == 200
    assert [each["choices"][0]["text"] for each in answer[:4]] == [" token"] * 4
    assert [each["choices"][0]["token_ids"] for each in answer[:4]] == [[0], [1], [2], [3]]
    assert [each["choices"][0]["finish_reason"] for each in answer[:4]] == [None] * 3 + ["length"]
    assert answer[4]["choices"] == []
    assert answer[4]["usage"]["prompt_tokens"] == 4
    assert answer[4]["usage"]["completion_tokens"] == 4
    assert answer[4]["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert answer[5] == "[DONE]"
    # A busy machine writes later than it should, never earlier.
    assert all(
        written - served.arrived_ns >= (30 + 3 * position) * 1e6
        for position, written in enumerate(served.written_ns)
    )
    assert list(served.written_tokens) == [1] * 4
    assert served.written_ns[-1] <= served.ended_ns
    assert (served.prompt_tokens, served.warm, served.in_flight) == (3, False, 1)
    assert (served.endpoint, served.asked_tokens, served.fault) == ("/v1/completions", 4, None)


def test_tokens_in_chunks():
    _, answer, (served,) = one(Behaviour(**FAST, tokens_per_chunk=3), body(max_tokens=7))
    ids = [each["choices"][0]["token_ids"] for each in answer[:-2]]
    assert ids == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(served.written_tokens) == [3, 3, 1]


def test_nothing_is_sent_that_was_not_asked_for():
    asked = body(return_token_ids=None, stream_options=None)
    _, answer, _ = one(Behaviour(**FAST), asked)
    assert all("token_ids" not in each["choices"][0] for each in answer[:-1])
    assert len(answer) == 5


def test_usage_belongs_to_its_request():
    async def work(client, server):
        answers = [await post(client, body(prompt=[1] * length)) for length in (2, 9)]
        return [answer[-2]["usage"]["prompt_tokens"] for _, answer in answers]

    assert go(Behaviour(**FAST), work) == [2, 9]


@pytest.mark.parametrize(("manner", "status"), [("sent", 200), ("ignored", 200), ("refused", 400)])
def test_usage_in_every_event(manner, status):
    options = {"include_usage": True, "continuous_usage_stats": True}
    behaviour = Behaviour(**FAST, continuous_usage=manner)
    got, answer, _ = one(behaviour, body(stream_options=options))
    assert got == status
    if status == 200:
        counts = [each.get("usage", {}).get("completion_tokens") for each in answer[:4]]
        assert counts == ([1, 2, 3, 4] if manner == "sent" else [None] * 4)


def test_a_chat_with_reasoning():
    behaviour = Behaviour(**FAST, reasoning_tokens=3, tokens_per_chunk=2)
    _, answer, (served,) = one(behaviour, chat(max_tokens=6), "/v1/chat/completions")
    deltas = [each["choices"][0]["delta"] for each in answer[:-2]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": " token token"},
        {"reasoning_content": " token", "content": " token"},
        {"content": " token token"},
    ]
    assert {each["object"] for each in answer[:-1]} == {"chat.completion.chunk"}
    assert answer[-2]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    assert (served.prompt_tokens, served.endpoint) == (5, "/v1/chat/completions")
    assert list(served.written_tokens) == [2, 2, 2]  # the role is no token


def test_answers_in_one_piece():
    _, text, (served,) = one(Behaviour(**FAST), body(prompt="a b  c d", stream=False))
    answer = json.loads(text)
    choice = {
        "index": 0,
        "text": " token" * 4,
        "finish_reason": "length",
        "token_ids": [0, 1, 2, 3],
    }
    assert answer["choices"] == [choice]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (4, 4)
    assert list(served.written_tokens) == [4]
    assert served.written_ns[0] - served.arrived_ns >= 7e6
    _, text, _ = one(Behaviour(**FAST), chat(stream=False), "/v1/chat/completions")
    message = {"role": "assistant", "content": " token" * 4}
    assert json.loads(text)["choices"][0]["message"] == message


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_as_ordered_and_on_record(kind):
    async def work(client, server):
        answers = []
        for _ in range(2):
            async with client.post("/v1/completions", json=body()) as answer:
                read = b""
                try:
                    async for data in answer.content.iter_any():
                        read += data
                except aiohttp.ClientPayloadError:
                    read += b"data: broken\n\n"
                answers.append((answer.status, read.decode()))
        return answers, server.served

    behaviour = Behaviour(**FAST, faults=(Fault(kind, every=2, stall_ms=25.0),))
    (good, (status, text)), (first, served) = go(behaviour, work)
    assert (first.fault, good[1].count(" token"), served.fault) == (None, 4, kind)
    expected = {
        "http_429": (429, 0, None),
        "http_500": (500, 0, None),
        "error_event": (200, 2, '{"error":{"message":"a fault as ordered"}}'),
        "cut": (200, 2, "broken"),
        "no_done": (200, 2, None),
        "garbage": (200, 2, "{no JSON"),
        "empty": (200, 0, "[DONE]"),
        "short": (200, 2, "[DONE]"),
        "long": (200, 6, "[DONE]"),
        "stall": (200, 4, "[DONE]"),
        "burst": (200, 4, "[DONE]"),
    }
    last = text.strip().rpartition("data: ")[2]
    assert (status, text.count(" token")) == expected[kind][:2]
    assert expected[kind][2] is None or last == expected[kind][2]
    assert ("[DONE]" in text) == (expected[kind][2] == "[DONE]")
    assert served.tokens == expected[kind][1]
    assert served.ended_ns is not None
    assert served.whole == (kind in ("stall", "burst"))
    assert len(served.written_ns) == (1 if kind == "burst" else served.tokens)
    if kind == "stall":
        assert (served.stall_ms, served.stalled_after) == (25.0, 2)
        assert served.written_ns[2] - served.arrived_ns >= (4 + 2 + 25) * 1e6
    else:
        assert (served.stall_ms, served.stalled_after) == (0.0, None)


@pytest.mark.parametrize("kind", ["cut", "error_event", "garbage", "empty", "short", "long"])
def test_faults_of_answers_in_one_piece(kind):
    async def work(client, server):
        try:
            _, text = await post(client, body(stream=False))
        except aiohttp.ClientError:
            text = None
        return text, server.served[0]

    text, served = go(Behaviour(**FAST, faults=(Fault(kind, every=1),)), work)
    if kind == "cut":
        assert text is None
    elif kind == "garbage":
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)
    elif kind == "error_event":
        assert json.loads(text) == {"error": {"message": "a fault as ordered"}}
    else:
        tokens = {"empty": 0, "short": 2, "long": 6}[kind]
        assert json.loads(text)["choices"][0]["text"] == " token" * tokens
        assert served.tokens == tokens
    assert served.ended_ns is not None


def test_slots_serve_in_the_order_of_arrival():
    async def work(client, server):
        await asyncio.gather(*(post(client, body()) for _ in range(6)))
        return server.served

    served = go(Behaviour(**FAST, slots=1), work)
    assert all(a.ended_ns <= b.started_ns for a, b in itertools.pairwise(served))
    assert all(each.written_ns[0] >= each.started_ns + 4e6 for each in served)
    served = go(Behaviour(**FAST, slots=2), work)
    assert all(a.ended_ns <= b.started_ns for a, b in zip(served, served[2:], strict=False))


async def figures(client):
    async with client.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return {
        name.removeprefix("known_"): int(value)
        for name, value in (line.split() for line in lines if not line.startswith("#"))
    }


async def until(client, **wanted):
    """Wait until the server's metrics say so."""
    while not wanted.items() <= (found := await figures(client)).items():
        await asyncio.sleep(0.01)
    return found


def test_clients_that_leave_free_what_they_held():
    async def work(client, server):
        first = asyncio.create_task(post(client, body()))
        await until(client, requests_running=1, tokens_total=1)
        second = asyncio.create_task(post(client, body()))
        await until(client, requests_running=1, requests_waiting=1)
        third = asyncio.create_task(post(client, body()))
        await until(client, requests_running=1, requests_waiting=2)
        second.cancel()  # while it waits
        await until(client, requests_waiting=1)
        first.cancel()  # amid its answer
        found = await until(client, requests_waiting=0, tokens_total=2)
        assert (found["requests_running"], found["requests_total"]) == (1, 3)
        third.cancel()
        await until(client, requests_running=0)
        return server.served

    first, second, third = go(Behaviour(first_ms=1, interval_ms=1e6, slots=1), work)
    assert [each.ended_ns for each in (first, second, third)] == [None] * 3
    assert [each.tokens for each in (first, second, third)] == [1, 0, 1]
    assert (second.started_ns, [each.in_flight for each in (first, second, third)]) == (
        None,
        [1, 2, 3],
    )
    assert second.left_ns <= first.left_ns <= third.started_ns


def test_requests_that_are_cut_by_the_end_of_the_server():
    async def run():
        async with KnownServer(Behaviour(first_ms=1e6)) as server, session(server) as client:
            task = asyncio.create_task(post(client, body()))
            await until(client, requests_running=1)
            await server.__aexit__(None, None, None)
            with pytest.raises(aiohttp.ClientError):
                await task
            return server.served

    (served,) = uvloop.run(run())
    assert served.ended_ns is None
    assert served.left_ns >= served.arrived_ns


@pytest.mark.parametrize(
    ("asked", "status", "param"),
    [
        (body(model=None), 400, "model"),
        (body(model="other"), 404, "model"),
        (body(prompt=None), 400, "prompt"),
        (body(prompt=[]), 400, "prompt"),
        (body(prompt={"a": 1}), 400, "prompt"),
        (body(max_tokens=0), 400, "max_tokens"),
        (body(max_tokens="4"), 400, "max_tokens"),
        (body(max_tokens=98), 400, "prompt"),
        (body(stream_options=[1]), 400, "stream_options"),
        (body(), 400, "return_token_ids"),
        ([1], 400, None),
    ],
)
def test_bad_requests_are_refused_and_not_on_record(asked, status, param):
    behaviour = Behaviour(context_length=100, ids="refused")
    got, text, served = one(behaviour, asked)
    error = json.loads(text)["error"]
    assert (got, error["code"], error["param"]) == (status, status, param)
    assert error["message"]
    assert served == []


@pytest.mark.parametrize("messages", [None, [], "hi", ["hi"], [{"role": "user"}]])
def test_bad_chats_are_refused(messages):
    status, text, _ = one(Behaviour(), chat(messages=messages), "/v1/chat/completions")
    assert (status, json.loads(text)["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"null", b'{"model": "known"'])
def test_a_body_that_is_no_json(data):
    async def work(client, server):
        async with client.post("/v1/completions", data=data) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["type"] == "invalid_request_error"
        return await post(client, body())  # and the server goes on

    assert go(Behaviour(**FAST), work)[0] == 200


def test_the_other_endpoints():
    async def work(client, server):
        found = {}
        for method, path in (
            ("GET", "/v1/models"),
            ("GET", "/health"),
            ("GET", "/nowhere"),
            ("GET", "/v1/completions"),
        ):
            async with client.request(method, path) as answer:
                found[path] = answer.status, await answer.json()
        return found

    found = go(Behaviour(context_length=77), work)
    assert found["/health"] == (200, {})
    status, models = found["/v1/models"]
    assert (status, [each["id"] for each in models["data"]]) == (200, ["known"])
    assert models["data"][0]["max_model_len"] == 77
    assert (found["/nowhere"][0], found["/v1/completions"][0]) == (404, 405)


def test_a_key_is_asked_for():
    async def work(client, server):
        statuses = []
        for sent in (None, "Bearer wrong", "Bearer right"):
            headers = {"Authorization": sent} if sent else {}
            async with client.get("/v1/models", headers=headers) as answer:
                statuses.append(answer.status)
        async with client.get("/health") as answer:
            return [*statuses, answer.status]

    assert go(Behaviour(api_key="right"), work) == [401, 401, 200, 200]


def test_the_standard_event_loop_serves_it_too():
    async def run():
        async with KnownServer(Behaviour(**FAST)) as server, session(server) as client:
            answers = await asyncio.gather(*(post(client, body()) for _ in range(8)))
            return [len(answer) for _, answer in answers], server.served

    lengths, served = asyncio.run(run())
    assert lengths == [6] * 8
    assert all(each.whole for each in served)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    leaf.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return folder / "certificate.pem", folder / "key.pem", context


def test_tls_in_a_process_of_its_own(certificates):
    certificate, key, context = certificates

    async def ask(url):
        async with (
            aiohttp.ClientSession(url) as client,
            client.post("/v1/completions", json=body(), ssl=context) as answer,
        ):
            return events(await answer.text())

    with known_server_process(Behaviour(**FAST), certificate, key) as (url, served):
        answer = asyncio.run(ask(url))
        assert served == []
    assert url.startswith("https://")
    assert len(answer) == 6
    assert [each.tokens for each in served] == [4]


def test_a_long_truth_comes_back_from_the_process():
    async def ask(url):
        async with aiohttp.ClientSession(url) as client:
            return await post(client, body(max_tokens=60_000, return_token_ids=None))

    with known_server_process(Behaviour(first_ms=0, interval_ms=0)) as (url, served):
        asyncio.run(ask(url))
    assert [len(each.written_ns) for each in served] == [60_000]


def test_certificates_that_cannot_be_used(certificates, tmp_path):
    _, key, _ = certificates
    (tmp_path / "bad.pem").write_text("no certificate")
    for files in ((tmp_path / "none.pem", key), (tmp_path / "bad.pem", key), (None, key)):
        with pytest.raises(InputError, match="certificate: "):
            KnownServer(Behaviour(), certificate=files[0], key=files[1])
    with (
        pytest.raises(InputError, match="certificate: "),
        known_server_process(Behaviour(), tmp_path / "none.pem"),
    ):
        pass


def test_a_port_that_is_taken():
    async def run():
        async with KnownServer(Behaviour()) as first:
            port = int(first.base_url.rpartition(":")[2])
            async with KnownServer(Behaviour(), port=port):
                pass

    with pytest.raises(InputError, match=r"port: cannot listen on 127\.0\.0\.1"):
        uvloop.run(run())
