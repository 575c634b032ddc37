"""One connection between a decode worker and a prefill worker: nobody waits for the other end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

import msgspec

from upcurve.engine.parallel.channel import Channel
from upcurve.engine.roles.messages import Beat, Message, decode, encode

MOST_BYTES = 2**26
"""Of a frame: a prompt of 16 million tokens."""
BEAT_SECONDS = 1.0
"""Between two signs of life."""


class Connection:
    """Sends in order on a thread of its own, and hands over what comes on another."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        self.heard = time.monotonic()
        """When the other end was heard last."""
        self._socket = connection
        self._channel = Channel(connection, most_bytes=MOST_BYTES)
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()

    def serve(self, take: Callable[[Message], None], lost: Callable[[str], None]) -> None:
        """Hand every message to `take`, and the reason of the end to `lost`: both on one thread.

        What is no message ends the connection, once the other end has closed it too.
        """
        writer = threading.Thread(target=self._write, name="upcurve-write", daemon=True)
        writer.start()

        def read() -> None:
            lost(self._read(take))
            # Its end may still be told something.
            writer.join()
            self._socket.close()

        threading.Thread(target=read, name="upcurve-read", daemon=True).start()

    def put(self, message: Message) -> None:
        """Send a message as soon as the other end takes it."""
        self._outbox.put(encode(message))

    def beat(self) -> None:
        """Send a sign of life, unless other messages wait already."""
        if self._outbox.empty():
            self.put(Beat())

    def close(self) -> None:
        """Send what is left, and no more; the other end sees that."""
        self._outbox.put(None)

    def abort(self) -> None:
        """End the connection at once."""
        self.close()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self, take: Callable[[Message], None]) -> str:
        reason = "the connection ended"
        while (frame := self._channel.receive()) is not None:
            self.heard = time.monotonic()
            try:
                take(decode(frame))
            except msgspec.DecodeError as error:
                reason = f"it said what is no message: {error}"
                self.close()
        return reason

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while (frame := self._outbox.get()) is not None:
                self._channel.send(frame)
            self._socket.shutdown(socket.SHUT_WR)
