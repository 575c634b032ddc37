from __future__ import annotations

import asyncio
import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.load import connection as connection_module
from upcurve.load.connection import Connection, Exchange


class Transport:
    """Takes what is written and knows whether it was closed."""

    def __init__(self):
        self.written = b""
        self.closed = False

    def write(self, data):
        self.written += data

    def abort(self):
        self.closed = True

    def is_closing(self):
        return self.closed


def event(token, text="ab"):
    choice = {"index": 0, "text": text, "token_ids": [token]}
    return b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n"


def usage(tokens):
    counts = {"prompt_tokens": 3, "completion_tokens": tokens}
    return b"data: " + orjson.dumps({"choices": [], "usage": counts}) + b"\n\n"


DONE = b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data, extension=b""):
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def stream(tokens, end=LAST):
    """Return the reads of an ordinary answer."""
    events = [event(token) for token in range(tokens)]
    return [CHUNKED, *map(chunk, events), chunk(usage(tokens)), chunk(DONE), end]


def carry(reads, *, requested=None, lost="never"):
    """Feed reads to a connection; return its exchange, and the connection."""

    async def run():
        connection = Connection()
        connection.connection_made(Transport())
        exchange = Exchange(0, requested)
        work = asyncio.ensure_future(connection.carry(exchange, b"request"))
        await asyncio.sleep(0)
        for data in reads:
            if not work.done() and not connection.closed:
                connection.data_received(data)
        if lost != "never":
            connection.connection_lost(lost)
        await asyncio.wait_for(work, 5)
        assert connection.transport.written == b"request"
        exchange.settle()
        return exchange, connection

    return asyncio.run(run())


def test_an_ordinary_answer():
    exchange, connection = carry(stream(5), requested=5)
    assert (exchange.failure, exchange.status) == (None, 200)
    assert list(exchange.answer.chunks[1]) == [1] * 5
    assert exchange.answer.output_tokens == 5
    assert connection.reusable
    assert exchange.first_byte_ns < exchange.answer.chunks[0][0] + 1000 <= exchange.ended_ns + 1000


@given(st.lists(st.integers(1, 900), max_size=20), st.booleans())
def test_where_reads_are_cut_is_no_matter(cuts, crlf):
    whole = b"".join(stream(4))
    if crlf:
        parts = [event(token).replace(b"\n", b"\r\n") for token in range(4)]
        whole = CHUNKED + b"".join(map(chunk, [*parts, usage(4), DONE])) + LAST
    edges = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
    exchange, connection = carry([whole[a:b] for a, b in itertools.pairwise(edges)], requested=4)
    assert exchange.failure is None, exchange.detail
    assert list(exchange.answer.chunks[1]) == [1] * 4
    stamps = list(exchange.answer.chunks[0])
    assert stamps == sorted(stamps)
    assert connection.reusable


BOTH = (event(0), event(1), usage(2), DONE)
END = chunk(usage(2) + DONE)
FRAMES = {
    "one chunk": [CHUNKED, chunk(b"".join(BOTH)), LAST],
    "halves": [CHUNKED, chunk(event(0)[:9]), chunk(event(0)[9:] + event(1)), END, LAST],
    "extension": [CHUNKED, chunk(event(0), b";x=y"), chunk(event(1)), END, LAST],
    "trailer": [CHUNKED, *map(chunk, BOTH), b"0\r\nx-trailer: 1\r\n\r\n"],
    "split end": [CHUNKED, *map(chunk, BOTH), b"0\r\n", b"\r\n"],
    "bytes": [CHUNKED, *map(chunk, BOTH), b"0", b"\r", b"\n\r", b"\n"],
    # What looks like the end stands where a read ends, and is none.
    "lookalike": [CHUNKED, chunk(b": 0\r\n\r\n"), chunk(event(0) + event(1)), END, LAST],
    "length": [HEAD + b"content-length: %d\r\n\r\n" % len(b"".join(BOTH)), *BOTH],
}


@pytest.mark.parametrize("reads", FRAMES.values(), ids=FRAMES.keys())
def test_every_way_to_frame_an_answer(reads):
    exchange, connection = carry(reads, requested=2)
    assert exchange.failure is None, exchange.detail
    assert sum(exchange.answer.chunks[1]) == 2
    assert connection.reusable


def test_an_answer_without_a_length_ends_with_the_connection():
    body = event(0) + event(1) + usage(2) + DONE
    exchange, connection = carry([HEAD + b"\r\n", body], requested=2, lost=None)
    assert exchange.failure is None
    assert not connection.reusable
    exchange, _ = carry([HEAD + b"\r\n", body], lost=ConnectionResetError("reset by peer"))
    assert (exchange.failure, exchange.detail) == ("cut", "reset by peer")


@pytest.mark.parametrize("head", [b"connection: close\r\n", b""])
def test_a_server_that_will_close_is_not_asked_again(head):
    start = CHUNKED.replace(b"content-type", head + b"content-type")
    if not head:
        start = start.replace(b"HTTP/1.1", b"HTTP/1.0")
    exchange, connection = carry([start, *stream(2)[1:]], requested=2)
    assert exchange.failure is None
    assert not connection.reusable


@pytest.mark.parametrize("kept", range(1, 8))
def test_a_stream_that_breaks_off_is_cut(kept):
    for lost in (None, ConnectionResetError("gone")):
        exchange, connection = carry(stream(4)[:kept], requested=4, lost=lost)
        assert exchange.failure == "cut"
        assert exchange.ended_ns > 0
        assert not connection.reusable


def test_no_answer_at_all_is_cut():
    exchange, _ = carry([], lost=None)
    assert (exchange.failure, exchange.first_byte_ns, exchange.status) == ("cut", None, None)


@pytest.mark.parametrize(
    ("status", "failure"), [(429, "http_4xx"), (503, "http_5xx"), (302, "malformed")]
)
def test_a_refusal(status, failure):
    body = orjson.dumps({"error": {"message": "not now"}})
    head = b"HTTP/1.1 %d Nope\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
    for lost in ("never", ConnectionResetError("gone")):
        reads = [head, body] if lost == "never" else [head, body[:-1]]
        exchange, connection = carry(reads, lost=lost)
        assert exchange.failure == failure
        assert exchange.detail.startswith(f"HTTP {status}: ")
        assert connection.reusable is (lost == "never")
    exchange, _ = carry([head + body])
    assert exchange.detail == f"HTTP {status}: not now"


def test_what_is_no_http():
    exchange, connection = carry([b"SSH-2.0-OpenSSH_9.6\r\n"])
    assert exchange.failure == "malformed"
    assert "no HTTP" in exchange.detail
    assert not connection.reusable


def test_bytes_after_the_end_close_the_connection():
    async def run():
        connection = Connection()
        connection.connection_made(Transport())
        work = asyncio.ensure_future(connection.carry(Exchange(0), b""))
        await asyncio.sleep(0)
        for data in stream(1):
            connection.data_received(data)
        await work
        assert connection.reusable
        connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        return connection

    assert not asyncio.run(run()).reusable


REFUSED = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nx: y\r\n\r\n"


@pytest.mark.parametrize(
    "end", [[LAST + REFUSED], [LAST, REFUSED], [LAST, REFUSED[:-2]]], ids=["glued", "whole", "part"]
)
def test_an_answer_to_nothing_spoils_the_connection_and_not_the_answer(end):
    exchange, connection = carry([*stream(2)[:-1], *end], requested=2)
    assert (exchange.failure, exchange.status) == (None, 200)
    assert not connection.reusable


@pytest.mark.parametrize("glued", [True, False])
def test_what_goes_ahead_of_an_answer_is_not_the_answer(glued):
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    start, *rest = stream(2)
    reads = [early + start, *rest] if glued else [early, start, *rest]
    exchange, connection = carry(reads, requested=2)
    assert (exchange.failure, exchange.status) == (None, 200), exchange.detail
    assert connection.reusable


def test_another_protocol_is_no_answer():
    switch = b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    exchange, connection = carry([switch])
    assert exchange.failure == "malformed"
    assert not connection.reusable


@given(st.data())
def test_an_event_is_stamped_with_the_read_that_completed_it(data):
    """Whatever the framing and the cuts: against the offsets of the whole stream."""
    ends, whole = [], CHUNKED
    for token in range(4):
        body = event(token)
        inside = data.draw(st.integers(0, len(body) - 1))
        first = chunk(body[:inside]) if inside else b""
        whole += first + chunk(body[inside:])
        # A line is complete with its line feed, which stands 4 bytes before the chunk's end.
        line = len(whole) - (3 if inside < len(body) - 1 else len(chunk(body[inside:])) + 2)
        ends.append(line)
    whole += chunk(usage(4)) + chunk(DONE) + LAST
    cuts = data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=12))
    edges = sorted({0, *cuts, len(whole)})
    reads = [whole[a:b] for a, b in itertools.pairwise(edges)]
    ticks = iter(range(1000, 10**6, 1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection_module, "_clock", lambda: next(ticks))
        exchange, _ = carry(reads, requested=4)
    assert exchange.failure is None, exchange.detail
    assert exchange.first_byte_ns == 1000
    assert exchange.ended_ns == 1000 * len(reads)
    expected = [
        1000 * next(place for place, edge in enumerate(edges) if edge >= end) for end in ends
    ]
    assert list(exchange.answer.chunks[0]) == expected


def test_a_long_answer_is_decoded_in_slices():
    async def run():
        connection = Connection()
        connection.connection_made(Transport())
        exchange = Exchange(0, 3000)
        work = asyncio.ensure_future(connection.carry(exchange, b""))
        await asyncio.sleep(0)
        most = 0
        for data in stream(3000):
            connection.data_received(data)
            most = max(most, len(connection._reads) + len(exchange.bodies))
        await work
        exchange.settle()
        return exchange, most

    exchange, most = asyncio.run(run())
    assert exchange.failure is None
    assert sum(exchange.answer.chunks[1]) == 3000
    assert most < 600


def test_two_exchanges_share_a_connection():
    async def run():
        connection = Connection()
        connection.connection_made(Transport())
        found = []
        for tokens in (2, 3):
            exchange = Exchange(0, tokens)
            work = asyncio.ensure_future(connection.carry(exchange, b"x"))
            await asyncio.sleep(0)
            for data in stream(tokens):
                connection.data_received(data)
            await work
            exchange.settle()
            found.append((exchange.failure, sum(exchange.answer.chunks[1])))
        assert connection.transport.written == b"xx"
        return found

    assert asyncio.run(run()) == [(None, 2), (None, 3)]
