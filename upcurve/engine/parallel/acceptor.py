"""Who comes to a socket that listens, one after the other, until it is closed."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
"""Between two attempts, where a connection cannot be accepted: too many files may be open."""


class Acceptor:
    """Accepts on a thread of its own, and goes on after whatever may pass."""

    def __init__(
        self,
        listener: socket.socket,
        take: Callable[[socket.socket, tuple[str, int]], None],
        kind: str,
    ) -> None:
        """Begin to accept.

        Args:
            listener: listens already.
            take: called with each connection and where it comes from; it must not wait.
            kind: who connects, in what is logged.
        """
        self._listener = listener
        self._take = take
        self._kind = kind
        self.closing = False
        """Whether nobody is wanted any more."""
        threading.Thread(target=self._run, name="upcurve-accept", daemon=True).start()

    def close(self) -> None:
        """Take no more."""
        self.closing = True
        with suppress(OSError):
            # It wakes the thread.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _run(self) -> None:
        while not self.closing:
            try:
                accepted, address = self._listener.accept()
            except OSError as error:
                if not self.closing:
                    logger.warning("no %s can connect: %s", self._kind, error.strerror)
                    time.sleep(RETRY_SECONDS)
                continue
            self._take(accepted, address[:2])
