"""What prefill ranks and decode ranks write into their connections."""

from __future__ import annotations

import socket
import time

import msgspec

from upcurve.engine.parallel.channel import fill

HEAD_BYTES = 4
"""A frame is the length of its header, little-endian in so many bytes, the header, and payload."""
MOST_HEADER_BYTES = 2**16
FRAME_BYTES = 2**22
"""Of a payload at most, unless a single token or head is more."""
FRAME_TOKENS = 4096
"""Of a payload at most: each has a row in the header."""

HELLO, REFUSED, KEY_VALUE, RECURRENT, CONVOLUTION, END, DONE, BYE = range(8)
"""What a frame is. The receiving rank answers hello with done or refused; end with done once all is
written; and says refused before it ends a connection on which something senseless arrived."""


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """A header; what a kind has no use for stays at its default."""

    kind: int
    text: str = ""
    """Of the transfer; of hello the session; of refused the reason."""
    layer: int = 0
    """Place among the layers of its kind; of hello the source rank."""
    slot: int = 0
    """Of the target; of hello the target rank."""
    begin: int = 0
    """First head or channel on the target; of hello the id of a process of this host that will
    write by itself, else 0."""
    count: int = 0
    """Heads or channels; of hello the protocol version; of end how many writes have to be seen."""
    rows: bytes = b""
    """int32, little-endian: the target's row of each token; of hello the name by which memory is
    written to, where that is not said in frames."""
    size: int = 0
    """Bytes of the payload."""


class BrokenFrameError(Exception):
    """The other end said something that makes no sense; the connection is of no use any more."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


def send(connection: socket.socket, frame: Frame, payload: memoryview | None = None) -> None:
    """Send a frame.

    Raises:
        OSError: the other end is gone, or takes nothing for as long as the socket waits.
    """
    header = _encode(frame)
    connection.sendall(len(header).to_bytes(HEAD_BYTES, "little") + header)
    if payload is not None:
        connection.sendall(payload)


def refuse(connection: socket.socket, reason: str, seconds: float) -> None:
    """Say why nothing more is taken, and wait until the other end has heard it.

    Raises:
        OSError: it does not hear.
    """
    connection.settimeout(seconds)
    send(connection, Frame(REFUSED, reason))
    connection.shutdown(socket.SHUT_WR)
    # A connection that is closed while something of the other end is unread takes words back.
    until = time.monotonic() + seconds
    while connection.recv(MOST_HEADER_BYTES) and time.monotonic() < until:
        pass


def receive(connection: socket.socket) -> Frame | None:
    """Wait for a header; None where the other end has closed the connection between frames.

    Raises:
        BrokenFrameError: it is none.
        OSError: the other end is gone.
    """
    head = bytearray(HEAD_BYTES)
    if not receive_into(connection, memoryview(head), may_end=True):
        return None
    length = int.from_bytes(head, "little")
    if not 0 < length <= MOST_HEADER_BYTES:
        raise BrokenFrameError(f"a header of {length} bytes")
    header = bytearray(length)
    receive_into(connection, memoryview(header))
    try:
        return _decode(header)
    except msgspec.DecodeError as error:
        raise BrokenFrameError(f"no frame: {error}") from error


def receive_into(connection: socket.socket, data: memoryview, *, may_end: bool = False) -> bool:
    """Fill `data`; False where nothing came and `may_end`.

    Raises:
        ConnectionError: the other end closed the connection before.
    """
    done = fill(connection, data)
    if done == len(data):
        return True
    if may_end and not done:
        return False
    raise ConnectionError("the other end closed the connection within a frame")
