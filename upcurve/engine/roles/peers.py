"""A prefill worker's connections to decode workers."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from upcurve.engine.errors import EngineInputError
from upcurve.engine.parallel.acceptor import Acceptor
from upcurve.engine.roles.connection import BEAT_SECONDS, Connection
from upcurve.engine.roles.messages import Ask, Cancel, Hello, Message, Refused, Welcome

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 30.0
"""A decode worker that is not heard for so long is taken for stuck, and gets nothing more."""


@dataclass(slots=True, eq=False)
class Peer:
    """One decode worker that has been heard; all but `connection` is for the engine's thread."""

    name: str
    connection: Connection
    session: str = ""
    """Set once it has said what it is, and fits."""
    opening: int = 0
    """Ranks that are not ready to send to it yet."""
    transfers: dict[int, str] = field(default_factory=dict)
    """Its number of each, and the name."""
    parted: bool = False
    """Whether it is gone, and only what is on its way to it is waited for."""
    stuck: bool = False
    """Whether it reads nothing any more, as far as is known."""


@dataclass(frozen=True, slots=True)
class Greeted:
    """News: a decode worker that fits has come."""

    peer: Peer
    hello: Hello


@dataclass(frozen=True, slots=True)
class Asked:
    """News: a decode worker wants a prompt."""

    peer: Peer
    ask: Ask


@dataclass(frozen=True, slots=True)
class Cancelled:
    """News: it wants it no more."""

    peer: Peer
    transfer: int


@dataclass(frozen=True, slots=True)
class Parted:
    """News: a decode worker is gone, or stuck."""

    peer: Peer
    reason: str


News = Greeted | Asked | Cancelled | Parted


class Peers:
    """Accepts decode workers, checks that they fit, and hands over what they say."""

    def __init__(
        self,
        listener: socket.socket,
        description: bytes,
        check: Callable[[bytes], None],
        tell: Callable[[News], None],
        gets_on: Callable[[], bool],
    ) -> None:
        """Begin to accept.

        Args:
            listener: listens already.
            description: of this engine's caches.
            check: raises EngineInputError where another's does not agree.
            tell: called with news, on any thread.
            gets_on: whether the engine is idle, or has computed since it was asked last.
        """
        self._description = description
        self._check = check
        self._tell = tell
        self._gets_on = gets_on
        self._all: set[Peer] = set()
        self._acceptor = Acceptor(listener, self._accept, "decode worker")
        threading.Thread(target=self._watch, name="upcurve-peers", daemon=True).start()

    def welcome(self, peer: Peer) -> None:
        """Tell a decode worker that it may ask."""
        peer.connection.put(Welcome(self._description))
        logger.info("decode worker %s is connected", peer.name)

    def refuse(self, peer: Peer, error: EngineInputError) -> None:
        """Tell a decode worker why it may not ask."""
        peer.connection.put(Refused(error.field, error.problem, error.mend, self._description))

    def dismiss(self, peer: Peer) -> None:
        """Close a decode worker's connection: nothing is on its way to it."""
        self._all.discard(peer)
        if peer.stuck:
            peer.connection.abort()
        else:
            peer.connection.close()

    def close(self) -> None:
        """Take no more."""
        self._acceptor.close()

    def _accept(self, accepted: socket.socket, address: tuple[str, int]) -> None:
        peer = Peer(f"{address[0]}:{address[1]}", Connection(accepted))
        self._all.add(peer)
        peer.connection.serve(
            lambda message: self._take(peer, message),
            lambda reason: self._tell(Parted(peer, reason)),
        )

    def _take(self, peer: Peer, message: Message) -> None:
        if isinstance(message, Ask):
            self._tell(Asked(peer, message))
        elif isinstance(message, Cancel):
            self._tell(Cancelled(peer, message.transfer))
        elif isinstance(message, Hello):
            try:
                self._check(message.description)
            except EngineInputError as error:
                logger.error("decode worker %s is refused: %s", peer.name, error)
                self.refuse(peer, error)
                peer.connection.close()
            else:
                self._tell(Greeted(peer, message))

    def _watch(self) -> None:
        while not self._acceptor.closing:
            time.sleep(BEAT_SECONDS)
            gets_on = self._gets_on()
            for peer in list(self._all):
                if gets_on:
                    peer.connection.beat()
                if time.monotonic() - peer.connection.heard > SILENCE_SECONDS:
                    peer.stuck = True
                    self._tell(Parted(peer, f"it was not heard for {SILENCE_SECONDS:g} s"))
