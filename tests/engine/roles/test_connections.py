"""Connections between workers over real sockets: silence, nonsense, and those that do not fit."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from upcurve.engine.errors import EngineInputError
from upcurve.engine.parallel.channel import Channel
from upcurve.engine.roles import connection as connection_module
from upcurve.engine.roles import links as links_module
from upcurve.engine.roles import peers as peers_module
from upcurve.engine.roles.links import Found, Link, Links, Lost
from upcurve.engine.roles.messages import (
    Beat,
    Cancel,
    Ended,
    Hello,
    Refused,
    Welcome,
    decode,
    encode,
)
from upcurve.engine.roles.peers import Cancelled, Greeted, Parted, Peers


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"never {what}"
        time.sleep(0.005)


def check(data: bytes) -> None:
    if data != b"fits":
        raise EngineInputError("page size", "8 here, 16 at the other worker", "the same")


class Clock:
    """Stands still until a test puts it on: no silence is that of a busy machine."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    for module in (links_module, peers_module):
        monkeypatch.setattr(module, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(links_module, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(links_module, "REFUSED_SECONDS", 0.05)
    clock = Clock()
    for module in (connection_module, links_module, peers_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


class Prefill:
    """A prefill worker's connections, and a decode worker that is a socket."""

    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.news: list[Any] = []
        self.gets_on = True
        self.rounds: list[bool] = []
        self.peers = Peers(listener, b"ours", check, self.news.append, self._asked)

    def _asked(self) -> bool:
        self.rounds.append(self.gets_on)
        return self.rounds[-1]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def told(self, kind: type) -> list[Any]:
        return [each for each in self.news if isinstance(each, kind)]


@pytest.fixture
def prefill() -> Iterator[Prefill]:
    prefill = Prefill()
    yield prefill
    prefill.peers.close()


@pytest.mark.parametrize(
    "nonsense", [b"\xff" * 64, (3).to_bytes(8, "little") + b"abc", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_nonsense_ends_its_connection_alone(prefill: Prefill, nonsense: bytes) -> None:
    with prefill.connect() as bad, prefill.connect() as good:
        bad.sendall(nonsense)
        bad.shutdown(socket.SHUT_WR)
        until(lambda: prefill.told(Parted), "parted")
        prefill.peers.dismiss(prefill.told(Parted)[0].peer)
        while bad.recv(100):
            pass
        channel = Channel(good)
        channel.send(encode(Hello("s", b"fits", [b"there"])))
        channel.send(encode(Cancel(3)))
        until(lambda: prefill.told(Cancelled), "heard")
        assert prefill.told(Greeted)[0].hello.offers == [b"there"]
        assert len(prefill.told(Parted)) == 1


def test_who_does_not_fit_is_told_so_and_what_there_is(prefill: Prefill) -> None:
    with prefill.connect() as other:
        channel = Channel(other)
        channel.send(encode(Hello("s", b"another", [])))
        answers = []
        while (frame := channel.receive()) is not None:
            answers.append(decode(frame))
        answers = [each for each in answers if not isinstance(each, Beat)]
        problem = ("page size", "8 here, 16 at the other worker", "the same")
        assert answers == [Refused(*problem, b"ours")]
        assert not prefill.told(Greeted)


def test_signs_of_life_stop_with_the_engine_and_silence_parts(
    prefill: Prefill, clock: Clock
) -> None:
    with prefill.connect() as other:
        channel = Channel(other)
        assert decode(channel.receive() or b"") == Beat()
        prefill.gets_on = False
        until(lambda: prefill.rounds.count(False) > 10, "asked whether it gets on")
        assert not prefill.told(Parted)
        clock.now += 30.1
        until(lambda: prefill.told(Parted), "parted")
        assert prefill.told(Parted)[0].reason == "it was not heard for 30 s"
        prefill.peers.dismiss(prefill.told(Parted)[0].peer)
        signs = 1
        while channel.receive() is not None:
            signs += 1
        # Those from before.
        assert signs <= prefill.rounds.count(True)


class Decode:
    """A decode worker's link, and a prefill worker that is a socket."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.news: list[Any] = []
        self.changes = 0
        address = ("127.0.0.1", self.listener.getsockname()[1])
        self.link = Link(address, check, self._tell, self._changed, 5.0)
        self.links = Links([self.link])

    def _tell(self, news: Any) -> None:
        self.news.append(news)
        if isinstance(news, Found):
            news.link.greet(Hello(news.session, b"fits", []))

    def _changed(self) -> None:
        self.changes += 1

    def accept(self) -> Channel:
        connection, _ = self.listener.accept()
        self.connection = connection
        channel = Channel(connection)
        assert isinstance(decode(channel.receive() or b""), Hello)
        return channel

    def lost(self) -> list[str]:
        return [each.session for each in self.news if isinstance(each, Lost)]


@pytest.fixture
def decoding() -> Iterator[Decode]:
    decoding = Decode()
    yield decoding
    decoding.link.close()
    decoding.listener.close()


def test_a_worker_that_falls_silent_is_lost_and_found_again(decoding: Decode, clock: Clock) -> None:
    link = decoding.link
    channel = decoding.accept()
    assert link.put(Cancel(1)) is None
    channel.send(encode(Welcome(b"fits")))
    until(lambda: link.state == "up", "up")
    until(decoding.links.attempted, "attempted")
    for _ in range(5):
        # Together longer than the silence that is borne.
        clock.now += 4
        channel.send(encode(Beat()))
        until(lambda: link._connection and link._connection.heard == clock.now, "heard")
    assert link.state == "up"
    session = link.put(Cancel(1))
    clock.now += 5.1
    until(decoding.lost, "lost")
    assert decoding.lost() == [session]
    assert (link.state, link.reason) == ("down", "it was not heard for 5 s")
    again = decoding.accept()
    again.send(encode(Welcome(b"fits")))
    again.send(encode(Ended(7, "late")))
    until(lambda: decoding.changes == 3, "found again")
    assert link.state == "up"
    assert link.put(Cancel(1)) != session


def test_a_worker_that_does_not_answer_is_greeted_anew(decoding: Decode, clock: Clock) -> None:
    first = decoding.accept()
    clock.now += 60.1
    second = decoding.accept()
    assert first.receive() is None
    assert decoding.link.reason == "it did not answer for 60 s"
    second.send(encode(Welcome(b"fits")))
    until(lambda: decoding.link.state == "up", "up")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_who_is_no_prefill_worker_is_said_so_once(
    decoding: Decode, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for _ in range(2):
        decoding.accept()
        decoding.connection.sendall(answer)
        decoding.connection.close()
        until(decoding.links.attempted, "attempted")
    assert decoding.link.state == "down"
    assert decoding.link.reason == (
        "what listens there is no prefill worker: give its --transfer-port"
    )
    decoding.accept().send(encode(Welcome(b"fits")))
    until(lambda: decoding.changes == 2, "found")
    assert [each.getMessage().partition(" is ")[2] for each in caplog.records] == [
        "down: what listens there is no prefill worker: give its --transfer-port",
        "up",
    ]


@pytest.mark.parametrize("says_so", [True, False])
def test_a_worker_that_does_not_fit_is_refused_from_either_side(
    decoding: Decode, says_so: bool
) -> None:
    channel = decoding.accept()
    answer = Refused("page size", "16 here, 8 there", "the same", b"no")
    channel.send(encode(answer if says_so else Welcome(b"no")))
    until(lambda: decoding.link.state == "refused", "refused")
    # Whoever says it first, it is said from here.
    assert decoding.link.reason == "page size: 8 here, 16 at the other worker; the same"
    with pytest.raises(EngineInputError, match=r"page size: 8 here, .*127\.0\.0\.1:"):
        decoding.links.attempted()
    decoding.connection.close()
    decoding.accept().send(encode(Welcome(b"fits")))
    until(lambda: decoding.link.state == "up", "taken")
    assert decoding.links.attempted()  # it has been, once, and nothing is refused any more
