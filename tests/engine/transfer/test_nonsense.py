"""What a decode rank makes of what no prefill rank says: a reason, and not one byte."""

from __future__ import annotations

import socket

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.transfer.engines import PAGE_SIZE, Ranks
from tests.engine.transfer.processes import gone
from upcurve.engine.transfer import frames
from upcurve.engine.transfer.frames import Frame
from upcurve.engine.transfer.offer import Offer
from upcurve.engine.transfer.receiver import Receiver


def talk(receiver: Receiver, *said: tuple[Frame, bytes] | bytes) -> Frame | None:
    """Say things to a receiver; return what it says last."""
    offer, last = Offer.decode(receiver.offer()), None
    with socket.create_connection((offer.host, offer.port), 60) as connection:
        for each in said:
            try:
                if isinstance(each, bytes):
                    connection.sendall(each)
                else:
                    frames.send(connection, each[0], memoryview(each[1]))
            except OSError:
                break
        try:
            connection.shutdown(socket.SHUT_WR)
            while (frame := frames.receive(connection)) is not None:
                last = frame
        except OSError:
            pass
    return last


HELLO = (Frame(frames.HELLO, "fuzz", 0, 0, 0, 1), b"")
ROWS = (4).to_bytes(4, "little")
KEYS = Frame(frames.KEY_VALUE, "t", 0, 0, 0, 2, ROWS, 128)
STATE = Frame(frames.RECURRENT, "t", 0, 0, 0, 1, b"", 256)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([b"GET / HTTP/1.1\r\n\r\n"], "a header of"),
        ([b"\x03\0\0\0abc"], "no frame"),
        ([(Frame(frames.END, "t"), b"")], "it does not begin with hello"),
        ([(Frame(frames.HELLO, "fuzz", 0, 1, 0, 1), b"")], "this is rank 0"),
        ([(Frame(frames.HELLO, "fuzz", 0, 0, 0, 9), b"")], "protocol version 9 there, 1 here"),
        (
            [(Frame(frames.HELLO, "fuzz", 0, 0, 0, 1, b"x"), b"")],
            "it writes to memory that was",
        ),
        ([HELLO, (Frame(99), b"")], "a frame of kind 99"),
        ([HELLO, (Frame(frames.KEY_VALUE, layer=1), b"")], "layer 1 of 1"),
        ([HELLO, (Frame(frames.KEY_VALUE, layer=-1), b"")], "layer -1 of 1"),
        ([HELLO, (Frame(frames.KEY_VALUE, begin=1, count=2), b"")], "heads or channels 1 to 3"),
        ([HELLO, (Frame(frames.KEY_VALUE, count=2, rows=b"abc"), b"")], "rows that are not int32"),
        ([HELLO, (Frame(frames.KEY_VALUE, count=2, rows=b"\0" * 4), b"")], "a page is not one"),
        ([HELLO, (Frame(frames.KEY_VALUE, count=2, rows=b"\xff" * 4), b"")], "a page is not one"),
        ([HELLO, (Frame(frames.KEY_VALUE, count=2, rows=ROWS, size=64), b"")], "64 bytes instead"),
        ([HELLO, (KEYS, b"x" * 100)], "within a frame"),
        ([HELLO, (Frame(frames.RECURRENT, slot=3, count=1), b"")], "slot 3 of 3"),
        ([HELLO, (Frame(frames.CONVOLUTION, slot=-1, count=1), b"")], "slot -1 of 3"),
    ],
)
def test_nonsense_ends_a_connection_with_a_reason_and_writes_nothing(
    said: list[tuple[Frame, bytes] | bytes], words: str, target: tuple[Ranks, Receiver]
) -> None:
    ranks, receiver = target
    answer = talk(receiver, *said)
    if answer is not None and answer.kind == frames.REFUSED:
        assert words in answer.text
    else:
        raise AssertionError(f"it was not refused: {answer}")
    ranks.check()
    assert gone(receiver, "fuzz").wait(60)


NUMBERS = st.integers(-3, 70)
FUZZ = st.builds(
    Frame,
    st.integers(2, 9),
    st.just("t"),
    *(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.binary(max_size=12),
    st.sampled_from([0, 64, 128, 256, 2**40]),
)


@settings(max_examples=100)
@given(said=st.lists(FUZZ, max_size=3))
def test_no_frame_writes_where_nobody_can_own(said: list[Frame]) -> None:
    ranks = Ranks(1, seed=2)
    (caches,) = ranks.caches
    unowned = caches.kv[:, :, 0], caches.recurrent[:, -1], caches.convolution[:, -1]
    before = [each.clone().view(torch.uint8) for each in unowned]
    receiver = Receiver(caches, PAGE_SIZE, 0, "127.0.0.1", "tcp")
    talk(receiver, HELLO, *((frame, b"z" * min(frame.size, 300)) for frame in said))
    gone(receiver, "fuzz").wait(60)
    receiver.close()
    for one, other in zip(before, unowned, strict=True):
        assert one.equal(other.contiguous().view(torch.uint8))
