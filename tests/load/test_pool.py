from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import pytest
import trustme

from upcurve.load import pool
from upcurve.load.connection import Exchange
from upcurve.load.known_server import Behaviour, Fault, KnownServer
from upcurve.load.pool import Pool
from upcurve.load.target import Target, environment_proxy
from upcurve.load.workload import SyntheticWorkload

FAST = Behaviour(first_ms=5, interval_ms=1)
WORKLOAD = SyntheticWorkload.exact(8, 4)


async def ask(used, target, index=0):
    """Send one request; return its exchange, settled."""
    prompt = WORKLOAD.prompt("measured", index)
    exchange = Exchange(0, 4)
    await used.exchange(exchange, target.payload(target.head, prompt, exact=True))
    exchange.settle()
    return exchange


@asynccontextmanager
async def pool_of(target, timeout_s=60.0):
    used = Pool(target, timeout_s)
    try:
        yield used
    finally:
        used.close()


def test_a_connection_is_used_again():
    async def run():
        async with KnownServer(FAST) as server:
            target = Target(server.base_url, "known")
            async with pool_of(target) as used:
                found = [await ask(used, target, index) for index in range(3)]
                both = await asyncio.gather(ask(used, target, 3), ask(used, target, 4))
            return [*found, *both], server.served

    exchanges, served = asyncio.run(run())
    assert [each.failure for each in exchanges] == [None] * 5
    assert [each.new_connection for each in exchanges] == [True, False, False, False, True]
    assert [each.warm for each in served].count(False) == 2


def test_one_that_was_idle_for_long_is_replaced(monkeypatch):
    monkeypatch.setattr(pool, "_IDLE_NS", 0)

    async def run():
        async with KnownServer(FAST) as server:
            target = Target(server.base_url, "known")
            async with pool_of(target) as used:
                return [await ask(used, target, index) for index in range(2)]

    exchanges = asyncio.run(run())
    assert [(each.failure, each.new_connection) for each in exchanges] == [(None, True)] * 2


@dataclass(frozen=True)
class Part:
    """The start of an answer, after which the server closes the connection."""

    data: bytes
    after_s: float = 0.0


@asynccontextmanager
async def scripted(answers):
    """A server that gives each connection as many answers as it is told, then closes it.

    Closing looks like a server that had enough of an idle connection: it happens once the next
    request is under way.
    """
    accepted = []

    async def serve(reader, writer):
        accepted.append(writer)
        for answer in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            if answer is None:
                writer.transport.abort()
                return
            if isinstance(answer, Part):
                writer.write(answer.data)
                await asyncio.sleep(answer.after_s)
                writer.close()
                return
            writer.write(answer)
        await reader.read()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", accepted
    finally:
        server.close()
        for writer in accepted:
            writer.transport.abort()


EVENT = b'data: {"choices": [{"text": "a", "token_ids": [1, 2, 3, 4]}]}\n\ndata: [DONE]\n\n'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(EVENT), EVENT)


def test_a_kept_connection_that_the_server_had_closed_is_replaced_in_silence():
    async def run():
        async with scripted([ANSWER, None]) as (url, accepted):
            target = Target(url, "m")
            async with pool_of(target) as used:
                found = [await ask(used, target) for _ in range(2)]
            return found, len(accepted)

    (first, second), accepted = asyncio.run(run())
    assert (first.failure, second.failure, accepted) == (None, None, 2)
    assert second.new_connection


def test_a_connection_that_breaks_on_its_first_request_or_in_an_answer_is_a_failure():
    async def run(answers):
        async with scripted(answers) as (url, accepted):
            target = Target(url, "m")
            async with pool_of(target) as used:
                found = [await ask(used, target) for _ in answers]
            return found[-1], len(accepted)

    exchange, accepted = asyncio.run(run([None]))
    assert (exchange.failure, accepted) == ("cut", 1)
    exchange, accepted = asyncio.run(run([ANSWER, Part(ANSWER[:20])]))
    assert (exchange.failure, accepted, exchange.new_connection) == ("cut", 1, False)


def test_the_second_attempt_has_what_the_first_left_of_the_timeout(monkeypatch):
    left = []

    async def run():
        async with scripted([ANSWER, Part(b"", after_s=0.5)]) as (url, _):
            target = Target(url, "m")
            async with pool_of(target, timeout_s=60.0) as used:
                loop = asyncio.get_running_loop()
                call_later = loop.call_later

                def noted(delay, callback, *args, **more):
                    if callback == used._expire:
                        left.append(delay)
                    return call_later(delay, callback, *args, **more)

                monkeypatch.setattr(loop, "call_later", noted)
                return [await ask(used, target) for _ in range(2)]

    exchanges = asyncio.run(run())
    assert [each.failure for each in exchanges] == [None, None]
    _, first, second = left
    assert second <= first - 0.5


@pytest.mark.parametrize("host", ["a..b", "no-such-host.invalid"])
def test_a_host_that_is_nowhere(host):
    async def run():
        target = Target(f"http://{host}:80", "m")
        async with pool_of(target) as used:
            return await ask(used, target)

    exchange = asyncio.run(run())
    assert exchange.failure == "connect"
    assert exchange.detail


def test_no_one_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused

        async def run():
            target = Target(f"http://127.0.0.1:{taken.getsockname()[1]}", "m")
            async with pool_of(target) as used:
                return await ask(used, target)

        exchange = asyncio.run(run())
    assert exchange.failure == "connect"
    assert exchange.ended_ns >= exchange.sent_ns


def test_no_end_within_the_timeout():
    stalling = Behaviour(5, 5, faults=(Fault("stall", every=1, stall_ms=60_000),))

    async def run():
        async with KnownServer(stalling) as server:
            target = Target(server.base_url, "known")
            async with pool_of(target, timeout_s=0.4) as used:
                return await ask(used, target)

    exchange = asyncio.run(run())
    assert (exchange.failure, exchange.detail) == ("timeout", "no end within 0.4 s")
    assert 0.3e9 < exchange.ended_ns - exchange.sent_ns < 50e9


# TLS and proxies


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def certificate(authority, tmp_path, monkeypatch):
    """Return files of a certificate of localhost, by an authority that is trusted."""
    issued = authority.issue_cert("localhost")
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(files[0])
    issued.private_key_pem.write_to_path(files[1])
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return files


def over_tls(files, behaviour=FAST):
    return KnownServer(behaviour, certificate=files[0], key=files[1])


def named(base_url, host="localhost"):
    return base_url.replace("127.0.0.1", host)


def test_tls(certificate):
    async def run():
        async with over_tls(certificate) as server:
            target = Target(named(server.base_url), "known")
            assert target.tls
            async with pool_of(target) as used:
                return [await ask(used, target, index) for index in range(3)]

    exchanges = asyncio.run(run())
    assert [each.failure for each in exchanges] == [None] * 3
    assert [each.new_connection for each in exchanges] == [True, False, False]


@pytest.mark.parametrize("wrong", ["name", "authority"])
def test_a_certificate_that_proves_nothing(certificate, wrong, monkeypatch, tmp_path):
    host = "localhost"
    if wrong == "name":
        host = "127.0.0.1"
    else:
        other = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(other)
        monkeypatch.setenv("SSL_CERT_FILE", str(other))

    async def run():
        async with over_tls(certificate) as server:
            target = Target(named(server.base_url, host), "known")
            async with pool_of(target) as used:
                return await ask(used, target)

    exchange = asyncio.run(run())
    assert exchange.failure == "connect"
    assert exchange.detail.startswith("TLS: ")
    assert "certificate" in exchange.detail.lower()


@asynccontextmanager
async def proxy(*, authorization=None):
    """A small HTTP proxy: passes requests on, opens tunnels; yields its port and what it saw."""
    seen = []

    async def pipe(reader, writer):
        while data := await reader.read(2**16):
            writer.write(data)
        writer.close()

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        seen.append((line, dict(each.split(": ", 1) for each in headers if each)))
        if seen[-1][1].get("Proxy-Authorization") != authorization:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            return
        method, url, _ = line.split()
        authority = url if method == "CONNECT" else url.split("/")[2]
        head = head.replace(f"http://{authority}".encode(), b"", 1)  # as the server wants it
        host, port = authority.split(":")
        onward, back = await asyncio.open_connection(host, int(port))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            back.write(head)
        await asyncio.gather(pipe(reader, back), pipe(onward, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()


def test_plain_http_through_a_proxy():
    secret = "Basic " + base64.b64encode(b"me:p@ss").decode()

    async def run():
        async with KnownServer(FAST) as server, proxy(authorization=secret) as (port, seen):
            url = f"http://me:p%40ss@127.0.0.1:{port}"
            target = Target(server.base_url, "known", proxy=url)
            async with pool_of(target) as used:
                return await ask(used, target), seen, server.base_url

    exchange, seen, base_url = asyncio.run(run())
    assert exchange.failure is None, exchange.detail
    ((line, headers),) = seen
    assert line == f"POST {base_url}/v1/completions HTTP/1.1"
    assert headers["Host"] == base_url.removeprefix("http://")


def test_tls_through_a_tunnel(certificate):
    async def run():
        async with over_tls(certificate) as server, proxy() as (port, seen):
            base_url = named(server.base_url)
            target = Target(base_url, "known", proxy=f"http://127.0.0.1:{port}")
            async with pool_of(target) as used:
                found = [await ask(used, target, index) for index in range(2)]
            return found, seen, base_url

    exchanges, seen, base_url = asyncio.run(run())
    assert [each.failure for each in exchanges] == [None, None], exchanges[0].detail
    assert [line for line, _ in seen] == [f"CONNECT {base_url.removeprefix('https://')} HTTP/1.1"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses(certificate, scheme):
    async def run():
        async with proxy(authorization="other") as (port, _):
            target = Target(f"{scheme}://localhost:9", "m", proxy=f"http://127.0.0.1:{port}")
            async with pool_of(target) as used:
                return await ask(used, target)

    exchange = asyncio.run(run())
    assert exchange.failure == ("http_4xx" if scheme == "http" else "connect")
    assert "407" in exchange.detail


def test_a_tunnel_that_was_refused_is_closed():
    async def run():
        closed = asyncio.Event()

        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            with suppress(ConnectionError):
                await reader.read()  # until the client has left
            closed.set()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        target = Target("https://localhost:9", "m", proxy=f"http://127.0.0.1:{port}")
        async with server, pool_of(target) as used:
            exchange = await ask(used, target)
            await asyncio.wait_for(closed.wait(), 60)
            return exchange

    assert asyncio.run(run()).failure == "connect"


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
def test_the_event_loop_of_the_measuring_processes_does_the_same(certificate):
    """TLS, a tunnel, a replaced connection and a timeout, on uvloop."""
    import uvloop

    stalling = replace(FAST, faults=(Fault("stall", every=1, stall_ms=60_000),))

    async def run():
        found = []
        async with over_tls(certificate) as server, proxy() as (port, _):
            for via in (None, f"http://127.0.0.1:{port}"):
                target = Target(named(server.base_url), "known", proxy=via)
                async with pool_of(target) as used:
                    found += [await ask(used, target, index) for index in range(2)]
        async with scripted([ANSWER, None]) as (url, _):
            target = Target(url, "m")
            async with pool_of(target) as used:
                found += [await ask(used, target) for _ in range(2)]
        async with KnownServer(stalling) as server:
            target = Target(server.base_url, "known")
            async with pool_of(target, timeout_s=0.4) as used:
                found.append(await ask(used, target))
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        exchanges = runner.run(run())
    assert [each.failure for each in exchanges] == [None] * 6 + ["timeout"]
    assert [each.new_connection for each in exchanges[:6]] == [True, False, True, False, True, True]
    # What came before the timeout is not lost.
    assert sum(exchanges[-1].answer.chunks[1]) == 2


@pytest.mark.parametrize(
    ("variables", "url", "found"),
    [
        ({}, "http://h:1", None),
        ({"http_proxy": "http://p:3128"}, "http://h:1", "http://p:3128"),
        ({"http_proxy": "p:3128"}, "http://h:1", "http://p:3128"),
        ({"http_proxy": "http://p:3128"}, "https://h:1", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://h:1", "http://p:3128"),
        ({"http_proxy": "http://p:1", "no_proxy": "h,other"}, "http://h:1", None),
        ({"http_proxy": "http://p:1", "no_proxy": "example.org"}, "http://a.example.org", None),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, "http://h:1", None),
    ],
)
def test_the_environment_names_proxies(monkeypatch, variables, url, found):
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(url) == found


def test_the_context_is_one_that_checks(certificate):
    used = Pool(Target("https://h", "m"), 1.0)
    assert used._context is not None
    assert used._context.verify_mode == ssl.CERT_REQUIRED
    assert used._context.check_hostname
