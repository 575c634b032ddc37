"""A decode worker's connections to prefill workers: found, greeted, watched, found again."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal
from uuid import uuid4

from upcurve.engine.errors import EngineInputError
from upcurve.engine.roles.connection import BEAT_SECONDS, Connection
from upcurve.engine.roles.messages import Done, Ended, Hello, Message, Refused, Welcome

logger = logging.getLogger(__name__)

RETRY_SECONDS, REFUSED_SECONDS = 0.5, 5.0
"""Between two attempts to connect; to one that did not fit or is none, it may be another by then.
"""
CONNECT_SECONDS = 5.0
GREETING_SECONDS = 60.0
"""How long an answer to the first message is waited for, before it is sent anew."""

State = Literal["down", "up", "refused"]


@dataclass(frozen=True, slots=True)
class Lost:
    """News: a prefill worker is gone, or was not heard for too long."""

    link: Link
    session: str


@dataclass(frozen=True, slots=True)
class Answered:
    """News: what a prefill worker said of a transfer."""

    link: Link
    message: Done | Ended


@dataclass(frozen=True, slots=True)
class Found:
    """News: something listens there; it has to be told how the ranks here are reached."""

    link: Link
    session: str


News = Lost | Answered | Found


class Link:
    """One prefill worker: a thread connects to it for as long as this process lives."""

    def __init__(
        self,
        address: tuple[str, int],
        check: Callable[[bytes], None],
        tell: Callable[[News], None],
        changed: Callable[[], None],
        silence_seconds: float,
    ) -> None:
        """Begin to connect.

        Args:
            address: of its transfer port.
            check: raises EngineInputError where its description does not agree.
            tell: called with news, on any thread.
            changed: called after every change of `state`, on any thread.
            silence_seconds: after which it counts as stuck.
        """
        self.name = f"{address[0]}:{address[1]}"
        self.state: State = "down"
        self.reason = "not connected yet"
        self.asked: set[int] = set()
        """Transfers that it has not answered; for the engine's thread."""
        self.attempted = threading.Event()
        """Whether it has once been found, found wanting, or found missing."""
        self.refusal: EngineInputError | None = None
        self._address = address
        self._check = check
        self._tell = tell
        self._changed = changed
        self._silence_seconds = silence_seconds
        self._connection: Connection | None = None
        self._session = ""
        self._greeted: tuple[str, Connection] | None = None
        """The session, while it is up."""
        self._answered = False
        """Whether it has said on this connection whether it fits."""
        self._silence = ""
        """How long it has said nothing, in words, where this end broke off for that."""
        self.closing = False
        """Whether no connection is wanted any more."""
        threading.Thread(target=self._run, name=f"upcurve-{self.name}", daemon=True).start()

    def put(self, message: Message) -> str | None:
        """Send a message; return the session, None where there is none."""
        greeted = self._greeted
        if greeted is None:
            return None
        session, connection = greeted
        connection.put(message)
        return session

    def greet(self, hello: Hello) -> None:
        """Say hello, unless the connection has been replaced meanwhile."""
        connection = self._connection
        if connection is not None and self._session == hello.session:
            connection.put(hello)

    def close(self) -> None:
        """End the connection, for good."""
        self.closing = True
        self._part()

    def watch(self) -> None:
        """Send a sign of life, and look for the other's; called again and again."""
        connection = self._connection
        if connection is None:
            return
        up = self._greeted is not None
        if up:
            connection.beat()
        # One that has just been started may still load.
        patience = self._silence_seconds if up else GREETING_SECONDS
        if time.monotonic() - connection.heard > patience:
            heard = "it was not heard" if up else "it did not answer"
            self._silence = f"{heard} for {patience:g} s"
            connection.abort()

    def _run(self) -> None:
        while not self.closing:
            ended, fits = threading.Event(), True
            try:
                connection = Connection(socket.create_connection(self._address, CONNECT_SECONDS))
            except OSError as error:
                self._set("down", f"it cannot be reached: {error.strerror or error}")
            else:
                self._connection, self._answered, self._silence = connection, False, ""
                self._session = uuid4().hex
                self._tell(Found(self, self._session))
                connection.serve(self._take, partial(self._end, ended))
                ended.wait()
                fits = self._answered and self.state != "refused"
            self.attempted.set()
            time.sleep(RETRY_SECONDS if fits else REFUSED_SECONDS)

    def _part(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.close()

    def _end(self, ended: threading.Event, reason: str) -> None:
        self._part()
        greeted, self._connection, self._greeted = self._greeted, None, None
        if greeted is not None:
            self._set("down", self._silence or reason)
        elif not (self._answered or self.closing):
            nobody = "what listens there is no prefill worker: give its --transfer-port"
            self._set("down", self._silence or nobody)
        self._tell(Lost(self, self._session))
        ended.set()

    def _take(self, message: Message) -> None:
        if isinstance(message, Welcome | Refused):
            self._answered = True
            try:
                self._check(message.description)
                if isinstance(message, Refused):
                    raise EngineInputError(message.field, message.problem, message.mend)
            except EngineInputError as error:
                self._refuse(error)
            else:
                assert self._connection is not None
                self._greeted = self._session, self._connection
                self._set("up")
            self.attempted.set()
        elif isinstance(message, Done | Ended):
            self._tell(Answered(self, message))

    def _refuse(self, error: EngineInputError) -> None:
        self.refusal = error
        self._set("refused", str(error))
        self._part()

    def _set(self, state: State, reason: str = "") -> None:
        if (state, reason) == (self.state, self.reason):
            return
        if state == "up":
            self.refusal = None
        self.state, self.reason = state, reason
        level = logging.ERROR if state == "refused" else logging.INFO
        words = f"{state}: {reason}" if reason else state
        logger.log(level, "prefill worker %s is %s", self.name, words)
        self._changed()


class Links:
    """All prefill workers of a decode worker."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.all = list(links)
        threading.Thread(target=self._watch, name="upcurve-links", daemon=True).start()

    def attempted(self) -> bool:
        """Return whether all have been tried once.

        Raises:
            EngineInputError: one does not fit.
        """
        for link in self.all:
            error = link.refusal
            if error is not None:
                where = f"{error.problem} ({link.name})"
                raise EngineInputError(error.field, where, error.mend) from error
        return all(link.attempted.is_set() for link in self.all)

    def choose(self, tried: set[Link]) -> Link | None:
        """Return the one with the least to do, of those that are up and were not tried."""
        up = [each for each in self.all if each.state == "up" and each not in tried]
        return min(up, key=lambda each: len(each.asked), default=None)

    def _watch(self) -> None:
        while not all(link.closing for link in self.all):
            time.sleep(BEAT_SECONDS)
            for link in self.all:
                link.watch()
