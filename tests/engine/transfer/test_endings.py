"""What happens when either end stops or dies: an error, no hang, no wrong byte.

The other end is a process of its own.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from dataclasses import replace

import pytest
import torch

from tests.engine.transfer.engines import Pair, Ranks, Reports
from tests.engine.transfer.processes import SESSION, Source, Target, gone, large, process
from tests.processes import until
from upcurve.engine.errors import EngineInputError
from upcurve.engine.transfer.offer import Offer
from upcurve.engine.transfer.reach import Place, Reach
from upcurve.engine.transfer.receiver import Receiver
from upcurve.engine.transfer.sender import CANCELLED, Part, Sender

WAYS = ["tcp", "copy"]
PART = Part("a", SESSION, 1, [5, 2, 7], 2, [3, 9, 1], first=0, count=10, last=True)
MANY = list(range(1, 4001))
LARGE = {"pages": 4000}
WIDE = replace(PART, pages=MANY, remote_pages=MANY[::-1], count=16_000)
"""A request of 32 MB in its one layer."""


def same(ranks: Ranks, before: tuple[torch.Tensor, ...]) -> bool:
    after = ranks.caches[0].kv, ranks.caches[0].recurrent
    return all(
        one.view(torch.uint8).equal(other.view(torch.uint8))
        for one, other in zip(before, after, strict=True)
    )


def send(sender: Sender, part: Part) -> None:
    outgoing = sender.step([part])
    if outgoing is not None:
        for layer in range(4):
            outgoing.after(layer)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes(way: str) -> None:
    with process(Target, way, {}) as target, process(Source, way, {}) as source:
        assert source("connect", SESSION, [target("offer")]) == {way}
        source("send", PART, 4)
        assert source("wait", "a") == [None]
        target("check", PART, 10)


@pytest.mark.parametrize("way", WAYS)
def test_a_decode_rank_that_is_killed_costs_an_error(way: str) -> None:
    source, reports = Ranks(1, seed=1), Reports()
    sender = Sender(source.caches[0], source.description, 0, reports)
    with process(Target, way, {}) as target:
        sender.connect(SESSION, source.description, [target("offer")], way)  # type: ignore[arg-type]
        send(sender, replace(PART, count=3, last=False))
        target.end()
        (error,) = reports.wait("a")
        assert error is not None
        assert error.startswith("the link to decode rank 0: ")
        # What the engine has launched meanwhile, and a request that comes later.
        for name in ("b", "c"):
            send(sender, replace(PART, transfer=name))
            assert reports.wait(name) != [None]
        assert reports.errors["a"] == [error]
    sender.close()


def test_a_decode_rank_that_takes_nothing_stops_no_step() -> None:
    source = Ranks(1, seed=1, **large(LARGE))
    reports = Reports()
    sender = Sender(source.caches[0], source.description, 0, reports)
    with process(Target, "tcp", LARGE) as target:
        sender.connect(SESSION, source.description, [target("offer")], "tcp")
        target.signal(signal.SIGSTOP)
        send(sender, WIDE)
        assert until(lambda: sender.sent_bytes > 0)
        time.sleep(0.2)
        assert not reports.errors
        # The sockets are full, and most waits where it was.
        assert 0 < sender.sent_bytes < source.caches[0].kv.nbytes / 2
        target.signal(signal.SIGCONT)
        assert reports.wait("a") == [None]
        target("check", WIDE, 16_000)
    sender.close()


def test_a_decode_rank_that_takes_nothing_for_long_breaks_its_session() -> None:
    source, reports = Ranks(1, seed=1), Reports()
    sender = Sender(source.caches[0], source.description, 0, reports, patience=0.2)
    with process(Target, "tcp", {}) as target:
        sender.connect(SESSION, source.description, [target("offer")], "tcp")
        target.signal(signal.SIGSTOP)
        send(sender, PART)
        (error,) = reports.wait("a")
        assert error == "the link to decode rank 0: the decode rank says nothing for 0.2 s"
    sender.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_prefill_rank_that_is_killed_writes_nothing_more(
    way: str, target: tuple[Ranks, Receiver]
) -> None:
    ranks, receiver = target
    with process(Source, way, {}) as source:
        assert source("connect", SESSION, [receiver.offer()]) == {way}
        # Only the first layers: the step goes on and does not end.
        source("send", PART, 2)
        source.end()
        assert gone(receiver).wait(60)
        before = ranks.caches[0].kv.clone(), ranks.caches[0].recurrent.clone()
    # Nothing of its session is taken any more, and another one is.
    with process(Source, way, {}) as source:
        with pytest.raises(AssertionError, match="its session has ended"):
            source("connect", SESSION, [receiver.offer()])
        assert same(ranks, before)
        source("connect", "two", [receiver.offer()])
        source("send", replace(PART, session="two"), 4)
        assert source("wait", "a") == [None]
    ranks.expect(Ranks(1, seed=1), PART, tokens=10)
    ranks.check()


def test_a_prefill_rank_that_is_stopped_is_gone_only_once_it_cannot_write(
    target: tuple[Ranks, Receiver],
) -> None:
    ranks, receiver = target
    with process(Source, "copy", {}) as source:
        source("connect", SESSION, [receiver.offer()])
        source.signal(signal.SIGSTOP)
        expelled = gone(receiver)
        assert not expelled.wait(0.3)
        source.signal(signal.SIGCONT)
        assert expelled.wait(60)
        source("send", PART, 4)
        assert source("wait", "a") != [None]
    ranks.check()


def test_over_tcp_a_prefill_rank_that_is_stopped_is_gone_at_once(
    target: tuple[Ranks, Receiver],
) -> None:
    ranks, receiver = target
    with process(Source, "tcp", {}) as source:
        source("connect", SESSION, [receiver.offer()])
        source.signal(signal.SIGSTOP)
        assert gone(receiver).wait(60)
        source.signal(signal.SIGCONT)
        source("send", PART, 4)
        assert source("wait", "a") != [None]
    ranks.check()


@pytest.mark.parametrize("way", WAYS)
def test_a_session_that_is_ended_by_the_prefill_rank(way: str) -> None:
    source, other = Ranks(1, seed=1), Ranks(1, seed=2)
    with Pair(source, other, way) as pair:
        pair.send(replace(PART, count=3, last=False))
        (sender,), (receiver,) = pair.senders, pair.receivers
        sender.disconnect(SESSION)
        (error,) = pair.reports.wait("a")
        assert error == "the link to decode rank 0: disconnected"
        assert gone(receiver).wait(60)
        pair.connect("two", way)
        pair.send(replace(PART, transfer="b", session="two"))
        assert pair.reports.wait("b") == [None]
    other.expect(source, PART, tokens=10)
    other.check()


def test_a_decode_rank_that_runs_out_of_files_is_found_again() -> None:
    with process(Target, "tcp", {}) as target, process(Source, "tcp", {}) as source:
        offer = Offer.decode(target("offer"))
        target("allow_files", 3)
        with socket.create_connection((offer.host, offer.port), 60):
            time.sleep(0.1)
            target("allow_files", 256)
            assert source("connect", SESSION, [offer.encode()]) == {"tcp"}
        source("send", PART, 4)
        assert source("wait", "a") == [None]
        target("check", PART, 10)


def test_engines_that_differ_are_not_connected(target: tuple[Ranks, Receiver]) -> None:
    ranks, receiver = target
    source = Ranks(1, seed=1)
    sender = Sender(source.caches[0], source.description, 0, Reports())
    theirs = replace(ranks.description, page_size=8)
    offer = Offer.decode(receiver.offer())
    assert offer.exports is not None
    elsewhere = replace(offer, exports=replace(offer.exports, host="other"))
    wrong = replace(offer, exports=replace(offer.exports, proof_bytes=b"x" * 16))
    with pytest.raises(EngineInputError, match="page size: 4 here, 8 at the other worker"):
        sender.connect(SESSION, theirs, [receiver.offer()])
    with pytest.raises(OSError, match="the offer of rank 1 came for that of rank 0"):
        sender.connect(SESSION, ranks.description, [replace(offer, rank=1).encode()])
    with pytest.raises(OSError, match="the decode rank is on another host"):
        sender.connect(SESSION, ranks.description, [elsewhere.encode()], "copy")
    with pytest.raises(OSError, match="the memory that was mapped is another"):
        sender.connect(SESSION, ranks.description, [wrong.encode()], "copy")
    nowhere = Place(0, (1,), (1,))
    reach = Reach("agent", b"", "here", 0, nowhere, nowhere, nowhere)
    asked = replace(offer, reach=reach).encode()
    for transport in ("auto", "copy", "tcp"):
        with pytest.raises(OSError, match="asks for NIXL: give both the same --transfer"):
            sender.connect(SESSION, ranks.description, [asked], transport)
    # Where nothing was forced the same offer does over TCP.
    assert sender.connect(SESSION, ranks.description, [wrong.encode()]) == ["tcp"]
    with pytest.raises(OSError, match="no offer of a decode rank"):
        sender.connect("two", ranks.description, [b"nonsense"])
    sender.close()
    receiver.close()
    with pytest.raises(OSError, match="refused"):
        sender.connect("three", ranks.description, [offer.encode()], "tcp")


@pytest.mark.parametrize("way", WAYS)
def test_many_sessions_come_and_go(way: str) -> None:
    source, other = Ranks(1, seed=1), Ranks(1, seed=2)
    before = threading.active_count()
    with Pair(source, other, way) as pair:
        (receiver,) = pair.receivers
        for number in range(5):
            name = str(number)
            pair.connect(name, way)
            pair.send(replace(PART, transfer=name, session=name))
            assert pair.reports.wait(name) == [None]
            ended = threading.Event()
            receiver.expel(name, ended.set)
            assert ended.wait(60)
        # Its connection has ended: requests of that session fail.
        pair.send(replace(PART, transfer="late", session="4"))
        (error,) = pair.reports.wait("late")
        assert error not in (None, CANCELLED)
    assert until(lambda: threading.active_count() <= before)
