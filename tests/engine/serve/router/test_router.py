"""The router between raw sockets: bytes pass unchanged, replicas die and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import orjson
import pytest

from tests.ports import free_port
from upcurve.engine.errors import EngineInputError
from upcurve.engine.serve.router import router as module
from upcurve.engine.serve.router.client import Client
from upcurve.engine.serve.router.replica import Replica
from upcurve.engine.serve.router.router import Router

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKS = [b"b\r\ndata: {1}\n\n\r\n", b"e\r\ndata: [DONE]\n\n\r\n", b"0\r\n\r\n"]


class FakeReplica:
    """A server that says what it is told to, byte by byte."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[bytes] = []
        self.connections = 0
        self.healthy = True
        # It comes back there: nobody else gets it meanwhile.
        self.port = free_port()
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> FakeReplica:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    def die(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (
                        int(line.partition(b":")[2])
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length")
                    ),
                    0,
                )
                request = head + await reader.readexactly(length)
                if request.startswith(b"GET /health"):
                    writer.write(HEALTHY if self.healthy else HEALTHY.replace(b"200", b"503"))
                    continue
                self.connections = len(self._writers)
                self.requests.append(request)
                await self.handler(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def stream(_: bytes, writer: asyncio.StreamWriter) -> None:
    for part in (STREAM, *CHUNKS):
        # Cut anywhere: the router looks for no borders.
        for byte in (part[:3], part[3:]):
            writer.write(byte)
            await writer.drain()
            await asyncio.sleep(0)


def scene(play: Callable[..., Coroutine[Any, Any, None]], *handlers: Handler) -> None:
    """Run `play(port, router, *replicas)` with a router in front of replicas."""

    async def main() -> None:
        replicas = [await FakeReplica(handler).start() for handler in handlers]
        router = Router([Replica.at(f"http://127.0.0.1:{each.port}") for each in replicas])
        await router.start()
        server = await asyncio.get_running_loop().create_server(
            lambda: Client(router), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        try:
            await asyncio.wait_for(play(port, router, *replicas), 30)
        finally:
            await router.stop(0)
            server.close()
            for each in replicas:
                each.die()

    asyncio.run(main())


def post(body: bytes, more: bytes = b"") -> bytes:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n"
    return head % (len(body), more) + body


async def ask(port: int, request: bytes) -> bytes:
    """Send a request on a connection of its own, and return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    data = await reader.read()
    writer.close()
    return data


CLOSE = b"Connection: close\r\n"


def test_streams_pass_unchanged_and_connections_are_kept() -> None:
    async def play(port: int, router: Router, replica: FakeReplica) -> None:
        expected = STREAM + b"".join(CHUNKS)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in (b'{"prompt":[1]}', b""):
            writer.write(post(body, b"X-Own: 1\r\n"))
            assert await reader.readexactly(len(expected)) == expected
            assert replica.requests[-1].endswith(b"\r\n\r\n" + body)
            assert b"X-Own: 1" in replica.requests[-1]
        # Two at once on one connection are answered one after the other.
        writer.write(post(b"{}") + post(b"{}"))
        assert await reader.readexactly(2 * len(expected)) == 2 * expected
        writer.close()
        assert await ask(port, post(b"{}", CLOSE)) == expected
        # The check of its health, and one connection for all requests.
        assert replica.connections == 2
        assert router.replicas[0].open == 0

    scene(play, stream)


def test_a_chunked_request_and_one_that_waits_to_be_let_in() -> None:
    async def play(port: int, _router: Router, replica: FakeReplica) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n"
            b"Connection: close\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"2\r\n{}\r\n0\r\n\r\n")
        assert (await reader.read()).endswith(CHUNKS[-1])
        assert replica.requests[0].endswith(b"content-length: 2\r\n\r\n{}")

    scene(play, stream)


def test_requests_are_shared_and_a_beginning_stays_where_it_is_known() -> None:
    async def play(port: int, _router: Router, one: FakeReplica, two: FakeReplica) -> None:
        known = orjson.dumps({"prompt": list(range(200))})
        await asyncio.gather(*(ask(port, post(known, CLOSE)) for _ in range(4)))
        assert sorted((len(one.requests), len(two.requests))) == [0, 4]
        await asyncio.gather(*(ask(port, post(b"{}", CLOSE)) for _ in range(8)))
        assert one.requests
        assert two.requests
        assert len(one.requests) + len(two.requests) == 12

    scene(play, stream, stream)


SENT = {
    "before": b"",
    "between chunks": STREAM + CHUNKS[0],
    "inside a chunk": STREAM + CHUNKS[0][:8],
}
"""What a replica has sent of its answer when it sends no more."""


def hanging(how: str) -> tuple[bytes, asyncio.Event, Handler]:
    """Return what is sent, what is set once it is, and a handler that sends it and no more."""
    sent, begun = SENT[how], asyncio.Event()

    async def hang(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        begun.set()
        await asyncio.sleep(60)

    return sent, begun, hang


@pytest.mark.parametrize("how", SENT)
def test_a_replica_that_dies_costs_its_own_requests_and_comes_back(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.05)
    sent, begun, hang = hanging(how)

    async def play(port: int, router: Router, bad: FakeReplica, good: FakeReplica) -> None:
        # So that the first gets the first request.
        router.replicas[1].open = 1
        lost = asyncio.ensure_future(ask(port, post(b"{}", CLOSE)))
        await begun.wait()
        router.replicas[1].open = 0
        await asyncio.sleep(0.05)
        bad.die()
        answer = await lost
        assert answer.startswith(sent)
        if how == "before":
            assert answer.startswith(b"HTTP/1.1 502")
            assert b"ended before its answer did" in answer
        elif how == "between chunks":
            # The stream says so itself, and ends as one does.
            assert b'data: {"error":{"message":"replica ' in answer
            assert answer.endswith(b"\r\n0\r\n\r\n")
        else:
            assert answer == sent
        for _ in range(4):
            assert (await ask(port, post(b"{}", CLOSE))).endswith(CHUNKS[-1])
        assert len(good.requests) == 4
        assert orjson.loads(router.health()[1])["replicas"][0]["up"] is False
        bad.handler = stream
        await bad.start()
        while not router.replicas[0].up:
            await asyncio.sleep(0.01)
        for _ in range(4):
            await ask(port, post(b"{}", CLOSE))
        assert len(bad.requests) > 1

    scene(play, hang, stream)


def test_a_stream_that_ends_with_an_error_leaves_its_connection_open() -> None:
    """Its chunks are whole: a client that keeps connections sends its next request there."""

    async def break_off(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + CHUNKS[0])
        await writer.drain()
        writer.transport.close()

    async def play(port: int, router: Router, *_: FakeReplica) -> None:
        router.replicas[1].open = 1
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"{}"))
        answer = await reader.readuntil(CHUNKS[-1])
        assert b"ended before its answer did" in answer
        writer.write(post(b"{}"))
        expected = STREAM + b"".join(CHUNKS)
        assert await reader.readexactly(len(expected)) == expected

    scene(play, break_off, stream)


def test_one_that_answers_503_is_left_out_and_another_is_asked() -> None:
    """It answers faster than any other, so it would get all requests until the next check."""

    async def refuse(_: bytes, writer: asyncio.StreamWriter) -> None:
        # Cut anywhere: it is known what it is once its head is whole.
        for part in (b"HTTP/1.1 5", b"03 Service Unavailable\r\ncontent-len", b"gth: 2\r\n\r\n{}"):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)

    async def play(port: int, router: Router, bad: FakeReplica, good: FakeReplica) -> None:
        bad.healthy = False
        router.replicas[1].open = 1
        assert await ask(port, post(b"{}", CLOSE)) == STREAM + b"".join(CHUNKS)
        assert (len(bad.requests), len(good.requests)) == (1, 1)
        assert not router.replicas[0].up
        assert [each.open for each in router.replicas] == [0, 1]
        # Nobody is asked twice.
        good.handler = refuse
        answer = await ask(port, post(b"{}", CLOSE))
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"no replica is up" in answer
        assert (len(bad.requests), len(good.requests)) == (1, 2)

    scene(play, refuse, stream)


@pytest.mark.parametrize("how", SENT)
def test_a_router_that_ends_tells_those_that_wait(how: str) -> None:
    sent, begun, hang = hanging(how)

    async def play(port: int, router: Router, _: FakeReplica) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"{}"))
        await begun.wait()
        assert await reader.readexactly(len(sent)) == sent
        await router.stop(0)
        rest = await reader.read()
        if how == "before":
            assert rest.startswith(b"HTTP/1.1 503")
            assert b"the router stops before the answer is whole" in rest
        elif how == "between chunks":
            assert b'data: {"error":{"message":"the router stops' in rest
            assert rest.endswith(b"\r\n0\r\n\r\n")
        else:
            assert rest == b""
        assert router.replicas[0].open == 0

    scene(play, hang)


def test_one_that_says_it_is_unwell_is_left_out_and_without_any_clients_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.02)

    async def play(port: int, router: Router, replica: FakeReplica) -> None:
        assert b'"status":"ok"' in await ask(port, b"GET /health HTTP/1.0\r\n\r\n")
        replica.healthy = False
        while router.replicas[0].up:
            await asyncio.sleep(0.01)
        answer = await ask(port, post(b"{}", CLOSE))
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in answer
        assert b"no replica is up" in answer
        assert (await ask(port, b"GET /health HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 503")

    scene(play, stream)


def test_a_connection_that_the_replica_closed_while_idle_is_replaced() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async def play(port: int, _router: Router, replica: FakeReplica) -> None:
        assert (await ask(port, post(b"{}", CLOSE))).endswith(b"ok")

        async def close(_: bytes, writer: asyncio.StreamWriter) -> None:
            replica.handler = say
            writer.transport.abort()

        replica.handler = close
        assert (await ask(port, post(b"{}", CLOSE))).endswith(b"ok")

    async def say(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    scene(play, say)


def test_a_client_that_leaves_is_told_to_the_replica_and_one_that_reads_late_holds_it_back() -> (
    None
):
    gone = asyncio.Event()
    written = 0

    async def endless(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(STREAM)
        try:
            while True:
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                written += 65536
                await writer.drain()
        except ConnectionError:
            gone.set()
            raise

    async def play(port: int, router: Router, _: FakeReplica) -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(post(b"{}"))
        before = -1
        while written != before or not written:
            before = written
            await asyncio.sleep(0.3)
        # Buffers of sockets, and no more.
        assert written < 64 * 2**20
        assert router.replicas[0].open == 1
        writer.transport.abort()
        await gone.wait()
        assert router.replicas[0].open == 0

    scene(play, endless)


def test_too_large_a_body_and_requests_while_it_drains() -> None:
    async def play(port: int, router: Router, replica: FakeReplica) -> None:
        answer = await ask(port, post(b"x" * (16 * 2**20 + 1)))
        assert answer.startswith(b"HTTP/1.1 413")
        assert not replica.requests
        reader, _ = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
        await router.stop(1)
        # One that was idle is closed, one that comes late is told why.
        assert await reader.read() == b""
        assert b"the router is draining" in await ask(port, post(b"{}"))

    scene(play, stream)


def test_metrics_of_all_replicas_are_told_apart() -> None:
    async def told(request: bytes, writer: asyncio.StreamWriter) -> None:
        text = b"# TYPE upcurve_open gauge\nupcurve_open 3.0\n# TYPE n counter\nn_total 2.0\n"
        assert request.startswith(b"GET /metrics")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))

    async def play(port: int, router: Router, *_: FakeReplica) -> None:
        text = (await ask(port, b"GET /metrics HTTP/1.0\r\n\r\n")).decode()
        for replica in router.replicas:
            for line in ('upcurve_open{replica="%s"} 3.0', 'n_total{replica="%s"} 2.0'):
                assert text.count(line % replica.url) == 1
            assert f'upcurve_router_replica_up{{replica="{replica.url}"}} 1.0' in text
        assert text.count("# TYPE upcurve_open gauge") == 1

    scene(play, told, told)


@pytest.mark.parametrize("url", ["", "ftp://a:1", "http://a:x", "http://a:1/v1", "http://:80"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(EngineInputError, match="replicas: "):
        Replica.at(url)
