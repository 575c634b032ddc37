"""The server of known timing over a bare socket: what no client library would send."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
import uvloop

from upcurve.load.known_server import Behaviour, KnownServer, connection

FAST = Behaviour(first_ms=2.0, interval_ms=1.0)
HEALTH = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"


def request(tokens=2, headers=b"", **more):
    asked = {"model": "known", "prompt": "a b", "max_tokens": tokens, "stream": True} | more
    data = json.dumps(asked).encode()
    head = b"POST /v1/completions?x=1 HTTP/1.1\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n"
    return head % (headers, len(data)) + data


def talk(work, behaviour=FAST):
    """Run work(reader, writer) on a connection to a server; return its result and the record."""

    async def run():
        async with KnownServer(behaviour) as server:
            host, port = server.base_url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                return await asyncio.wait_for(work(reader, writer), 60), server.served
            finally:
                writer.close()

    return uvloop.run(run())


def send(*pieces, ends=1):
    """Send pieces one after the other, then read until the n-th answer ends."""

    async def work(reader, writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return b"".join([await reader.readuntil(b"\r\n0\r\n\r\n") for _ in range(ends)])

    return talk(work)


def chunks(answer):
    """Return the data of an answer in chunks, each as long as it says."""
    at = answer.index(b"\r\n\r\n") + 4
    assert b"Transfer-Encoding: chunked" in answer[:at]
    found = []
    while True:
        line = answer.index(b"\r\n", at)
        start, end = line + 2, line + 2 + int(answer[at:line], 16)
        assert answer[end : end + 2] == b"\r\n"
        if start == end:
            return found
        found.append(answer[start:end])
        at = end + 2


def test_chunks_are_as_long_as_they_say():
    answer, _ = send(request())
    first, second, done = chunks(answer)
    assert first.startswith(b"data: {")
    assert json.loads(second[6:])["choices"][0]["finish_reason"] == "length"
    assert done == b"data: [DONE]\n\n"


def test_a_request_byte_by_byte():
    data = request()
    answer, (served,) = send(*(data[at : at + 1] for at in range(len(data))))
    assert len(chunks(answer)) == 3
    assert served.whole


def test_requests_in_one_piece_are_answered_in_order():
    answer, served = send(request(1) + request(3) + request(2), ends=3)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert [each.tokens for each in served] == [1, 3, 2]
    assert [each.warm for each in served] == [False, True, True]
    assert [each.in_flight for each in served] == [1, 1, 1]
    for before, after in itertools.pairwise(served):
        assert before.ended_ns <= after.started_ns
        assert after.written_ns[0] >= after.started_ns + 2e6


def test_many_short_requests_in_one_piece():
    async def work(reader, writer):
        writer.write(HEALTH * 3000)
        return [await reader.readuntil(b"{}") for _ in range(3000)]

    answers, _ = talk(work)
    assert len(answers) == 3000


def test_a_huge_body():
    prompt = "word " * 1_000_000
    answer, (served,) = send(request(prompt=prompt))
    assert len(chunks(answer)) == 3
    assert served.prompt_tokens == 1_000_000


def test_a_body_in_chunks():
    head, _, data = request().partition(b"\r\n\r\n")
    head = head.partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (data[:9], data[9:]))
    answer, _ = send(head, body, b"0\r\n\r\n")
    assert len(chunks(answer)) == 3


def test_a_client_that_waits_for_leave():
    head, _, data = request(headers=b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")

    async def work(reader, writer):
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(data)
        return await reader.readuntil(b"\r\n0\r\n\r\n")

    assert len(chunks(talk(work)[0])) == 3


@pytest.mark.parametrize("asked", [request(headers=b"Connection: close\r\n"), None])
def test_a_connection_that_is_to_be_closed(asked):
    async def work(reader, writer):
        writer.write(asked or HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        return await reader.read()  # until the server closes

    answer, _ = talk(work)
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"0\r\n\r\n" if asked else b"{}")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /health HTTP/1.0\r\n\r\n", 505),
        (b"GET /health HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 505),
        (b"POST /v1/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (request(prompt="long " * 50), 413),
    ],
)
def test_what_is_no_request(data, status, monkeypatch):
    monkeypatch.setattr(connection, "_MOST_BYTES", 200)

    async def work(reader, writer):
        writer.write(data)
        return await reader.read()

    answer, served = talk(work)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == status
    assert served == []


def test_a_client_that_does_not_read_gets_everything_later():
    behaviour = Behaviour(first_ms=0, interval_ms=0)

    async def run():
        async with KnownServer(behaviour) as server:
            host, port = server.base_url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port), limit=2**26)
            writer.transport.pause_reading()
            writer.write(request(60_000) + HEALTH)
            while not server.served or server.served[0].ended_ns is None:
                await asyncio.sleep(0.01)
            writer.transport.resume_reading()
            data = await asyncio.wait_for(reader.readuntil(b"{}"), 60)
            writer.close()
            return data

    data = uvloop.run(run())
    stream, _, health = data.rpartition(b"HTTP/1.1 200 OK")
    assert len(chunks(stream)) == 60_001
    assert health.endswith(b"{}")
