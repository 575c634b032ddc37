"""What links have in common whose other end says when a transfer has been written."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress

from upcurve.engine.transfer import frames
from upcurve.engine.transfer.frames import Frame
from upcurve.engine.transfer.link import Ends, Link, Transfer

TICK_MILLISECONDS = 500
"""How often it is looked at whether the other side says too little."""


class AcknowledgedLink(Link):
    """Asks at the end of a transfer, and hears the answer on a thread of its own."""

    def __init__(self, ends: Ends, connection: socket.socket, patience: float) -> None:
        """Take a connection on which hello was answered, and the seconds that it may wait."""
        super().__init__(ends)
        self._connection = connection
        connection.settimeout(patience)
        self._patience = patience
        self._ending: dict[str, tuple[Transfer, float]] = {}
        self._lock = threading.Lock()
        self._listener = threading.Thread(target=self._listen, name="upcurve-acks", daemon=True)
        self._listener.start()

    def _ask(self, transfer: Transfer, count: int = 0) -> None:
        """Ask when all of a transfer is written; `count` is what the other side has to see."""
        with self._lock:
            self._ending[transfer.name] = transfer, time.monotonic() + self._patience
        frames.send(self._connection, Frame(frames.END, transfer.name, count=count))

    def _listen(self) -> None:
        """Hear what is written, until the connection ends; it ends too where nothing is heard."""
        reason = "the decode rank ended"
        try:
            while self._wait() and (frame := frames.receive(self._connection)) is not None:
                if frame.kind == frames.REFUSED:
                    reason = frame.text
                    break
                if frame.kind == frames.DONE:
                    with self._lock:
                        transfer, _ = self._ending.pop(frame.text, (None, 0.0))
                    if transfer is not None:
                        self._written(self, transfer)
        except (OSError, frames.BrokenFrameError) as error:
            reason = str(error)
        self.stop(reason)

    def _wait(self) -> bool:
        """Wait until there is something to hear; False once the link is broken.

        Raises:
            TimeoutError: an answer is overdue.
        """
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while self._reason is None:
            if poll.poll(TICK_MILLISECONDS):
                return True
            with self._lock:
                overdue = [end for _, end in self._ending.values() if end < time.monotonic()]
            if overdue:
                raise TimeoutError(f"the decode rank says nothing for {self._patience:g} s")
        return False

    def _interrupt(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        self._interrupt()
        self._listener.join()
        self._connection.close()
