"""Frames of bytes between two ranks, over one TCP connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

HEAD_BYTES = 8
"""A frame is its length, little-endian in so many bytes, and a message."""


class Channel:
    """One end of a connection; `send` may be called by several threads."""

    def __init__(self, connection: socket.socket, *, most_bytes: int | None = None) -> None:
        """Take a connection; a frame of more than `most_bytes` ends it, as garbage may look so."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._most_bytes = most_bytes
        self._sending = threading.Lock()

    def send(self, message: bytes) -> None:
        """Send a frame.

        Raises:
            OSError: the other end is gone.
        """
        with self._sending:
            self._connection.sendall(len(message).to_bytes(HEAD_BYTES, "little") + message)

    def receive(self) -> bytes | None:
        """Wait for a frame; None where the other end is gone."""
        head = self._read(HEAD_BYTES)
        count = int.from_bytes(head or b"", "little")
        if head is None or (self._most_bytes is not None and count > self._most_bytes):
            return None
        return self._read(count)

    def serve(self, take: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """Hand every frame to `take` on a thread of its own, and call `lost` at the end."""

        def run() -> None:
            while (message := self.receive()) is not None:
                take(message)
            lost()

        threading.Thread(target=run, name="upcurve-channel", daemon=True).start()

    def _read(self, count: int) -> bytes | None:
        data = bytearray(count)
        try:
            whole = fill(self._connection, memoryview(data)) == count
        except OSError:
            return None
        return bytes(data) if whole else None


def fill(connection: socket.socket, data: memoryview) -> int:
    """Receive into `data` until it is full or the other end closes; return the bytes that came.

    Raises:
        OSError: the other end is gone.
    """
    done = 0
    while done < len(data) and (part := connection.recv_into(data[done:])):
        done += part
    return done


def accept(listener: socket.socket, count: int) -> dict[int, Channel]:
    """Wait for so many ranks to connect; return rank -> channel."""
    channels: dict[int, Channel] = {}
    while len(channels) < count:
        connection, _ = listener.accept()
        channel = Channel(connection)
        hello = channel.receive()
        # What says nothing sensible is no rank.
        if hello is not None and hello.isdigit():
            channels[int(hello)] = channel
    return channels


def connect(host: str, port: int, rank: int) -> Channel:
    """Connect to another rank, and say who this is."""
    channel = Channel(socket.create_connection((host, port)))
    channel.send(str(rank).encode())
    return channel
