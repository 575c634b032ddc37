"""What each rank of a prefill worker or a decode worker does when its leader says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.transfers import Cancel, Close, Expel, Invite, Open, Order, Report, Tell
from upcurve.engine.memory.caches import Caches
from upcurve.engine.transfer.description import Description
from upcurve.engine.transfer.link import Part
from upcurve.engine.transfer.receiver import Receiver
from upcurve.engine.transfer.sender import CANCELLED, Sender
from upcurve.engine.transfer.transport import Transport


class SendingRank:
    """One rank of a prefill worker; it reports each transfer that it began, once."""

    def __init__(
        self, caches: Caches, description: Description, rank: int, transport: Transport, tell: Tell
    ) -> None:
        """Take what is sent.

        Args:
            caches: of this rank.
            description: of its engine.
            rank: among those that share the heads.
            transport: how it is sent.
            tell: takes reports to the leader, on any thread.
        """
        self._sender = Sender(caches, description, rank, self._finished)
        self._transport: Transport = transport
        self._tell = tell
        self._begun: set[str] = set()
        self._opening: dict[str, bool] = {}
        """Sessions that are being opened, and whether they are wanted still."""
        self._lock = threading.Lock()

    def obey(self, order: Order) -> None:
        """Open or close a session, or cancel a transfer."""
        if isinstance(order, Open):
            with self._lock:
                self._opening[order.session] = True
            # It waits for the ranks of the other engine.
            threading.Thread(target=self._open, args=(order,), name="upcurve-open").start()
        elif isinstance(order, Cancel):
            with self._lock:
                begun = order.transfer in self._begun
            if begun:
                self._sender.cancel(order.transfer)
            else:
                self._tell(Report("ended", order.transfer))
        elif isinstance(order, Close):
            with self._lock:
                if order.session in self._opening:
                    self._opening[order.session] = False
            self._sender.disconnect(order.session)

    def begin(self, parts: Sequence[Part]) -> Callable[[int], None] | None:
        """Prepare to send what a step computes; return what to call behind each layer."""
        with self._lock:
            self._begun.update(part.transfer for part in parts)
        outgoing = self._sender.step(parts)
        return None if outgoing is None else outgoing.after

    def _open(self, order: Open) -> None:
        error = None
        try:
            theirs = Description.decode(order.description)
            self._sender.connect(order.session, theirs, order.offers, self._transport)
        except (OSError, EngineInputError) as problem:
            error = str(problem)
        except Exception as problem:
            # Whatever a driver says, the leader has to hear it.
            error = f"{type(problem).__name__}: {problem}"
        with self._lock:
            wanted = self._opening.pop(order.session)
        if not wanted:
            self._sender.disconnect(order.session)
        self._tell(Report("opened", order.session, error))

    def _finished(self, transfer: str, error: str | None) -> None:
        with self._lock:
            self._begun.discard(transfer)
        reason = None if error == CANCELLED else error
        self._tell(Report("ended", transfer, reason, sent_bytes=self._sender.sent_bytes))


class ReceivingRank:
    """One rank of a decode worker."""

    def __init__(self, receiver: Receiver, tell: Tell) -> None:
        """Take the receiver, and what takes reports to the leader, on any thread."""
        self._receiver = receiver
        self._tell = tell

    def obey(self, order: Order) -> None:
        """Say how this rank is reached, or let somebody write no more."""
        if isinstance(order, Invite):
            self._tell(Report("offer", order.session, offer=self._receiver.offer()))
        elif isinstance(order, Expel):
            gone = Report("expelled", order.session)
            self._receiver.expel(order.session, lambda: self._tell(gone))

    def begin(self, parts: Sequence[Part]) -> Callable[[int], None] | None:
        """Refuse: nothing is sent from here."""
        raise RuntimeError(f"a decode worker computes {len(parts)} prompts for others")
