"""The part of a prefill worker's engine: computes prompts for others, and nothing else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.event import Event, TokenLogprobs
from upcurve.engine.execute.role import TransferCounts
from upcurve.engine.execute.transfers import Cancel, Close, Open, Order, Report, Told
from upcurve.engine.memory.reservation import Reservation
from upcurve.engine.roles.inbox import Inbox
from upcurve.engine.roles.messages import Ask, Done, Ended, Hello
from upcurve.engine.roles.peers import Asked, Cancelled, Greeted, News, Peer, Peers
from upcurve.engine.schedule.request import Request, Target

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Transfer:
    """A prompt for somebody else."""

    peer: Peer
    number: int
    """By which the peer knows it."""
    request: Request
    asked: float
    """time.perf_counter(), as the next."""
    waiting: set[int]
    """Ranks that may still read it; this and what follows is guarded by the role's lock."""
    drawn: float = 0.0
    token: int | None = None
    logprobs: TokenLogprobs | None = None
    done: float = 0.0
    """When all of it had arrived and its token was drawn; 0 before."""
    memory: Reservation | None = None
    """Where its request has ended before: what is freed when no rank reads it any more."""
    reason: str = ""


class PrefillRole(Inbox[News | Told]):
    """Requests come from decode workers, and end when all of them is in its place there.

    Their memory is theirs until every rank knows that what it sent has arrived, or will send no
    more.
    """

    name: Literal["prefill", "decode"] = "prefill"

    def __init__(self, order: Callable[[Order], None], ranks: int) -> None:
        """Begin without decode workers.

        Args:
            order: hands an order to all ranks of this engine, on its thread.
            ranks: how many they are.
        """
        super().__init__()
        self.counts = TransferCounts()
        self.peers: Peers
        """They tell their news to `tell`."""
        self._order = order
        self._ranks = ranks
        self._transfers: dict[str, _Transfer] = {}
        self._sessions: dict[str, Peer] = {}
        self._sent_bytes: dict[int, int] = {}
        self._count = 0
        self._lock = threading.Lock()

    def tell(self, news: News | Told) -> None:
        """Hear news, on any thread.

        The engine's may be waiting for the next prompt: what is complete is said at once.
        """
        if isinstance(news, Told) and news.report.kind == "ended" and news.report.error is None:
            with self._lock:
                transfer = self._transfers.get(news.report.name)
                if transfer is not None:
                    transfer.waiting.discard(news.rank)
                    self._complete(transfer)
        super().tell(news)

    @property
    def kept(self) -> int:
        """Reservations that no request owns."""
        return sum(each.memory is not None for each in self._transfers.values())

    def attend(self, engine: Engine) -> list[Event]:
        """Act on what decode workers and own ranks have told."""
        events: list[Event] = []
        while self._news:
            news = self._news.popleft()
            if isinstance(news, Told):
                events += self._reported(engine, news)
            elif isinstance(news, Asked):
                self._add(engine, news.peer, news.ask)
            elif isinstance(news, Cancelled):
                events += engine.abort(news.peer.transfers.get(news.transfer, ""))
            elif isinstance(news, Greeted):
                self._greet(news.peer, news.hello)
            else:
                events += self._part(engine, news.peer, news.reason)
        self._recount()
        return events

    def flush(self, engine: Engine) -> None:  # noqa: ARG002
        """Count: nothing else is to be done after a step."""
        self._recount()

    def _recount(self) -> None:
        self.counts.kept = self.kept
        self.counts.in_flight = len(self._transfers) - self.counts.kept
        self.counts.bytes = sum(self._sent_bytes.values())

    def drawn(
        self, engine: Engine, request: Request, token: int, top: TokenLogprobs | None
    ) -> None:
        """Take the first token of a prompt: with the last rank's report its transfer is done."""
        transfer = self._transfers[request.id]
        with self._lock:
            transfer.token, transfer.logprobs, transfer.drawn = token, top, time.perf_counter()
            self._complete(transfer)
        self._settle(engine, transfer)

    def leave(self, request: Request, reason: str | None) -> None:
        """Keep the memory of a request that ends before its transfer, until no rank reads it."""
        transfer = self._transfers.get(request.id)
        if transfer is None:
            return
        with self._lock:
            if transfer.done:
                # The other side has all of it, and knows.
                self._forget(transfer)
                return
            if request.computed:
                transfer.memory = request.part()
        transfer.reason = reason or "it was cancelled"
        if reason is None:
            self.counts.cancelled += 1
        else:
            self.counts.failed += 1
        if transfer.memory is None:
            self._end(transfer)
        else:
            self._order(Cancel(request.id))

    def close(self) -> None:
        """End all connections."""
        self.peers.close()
        for peer in list(self._sessions.values()):
            self.peers.dismiss(peer)

    def _greet(self, peer: Peer, hello: Hello) -> None:
        if peer.parted or peer.session or hello.session in self._sessions:
            return
        peer.session = hello.session
        peer.opening = self._ranks
        self._sessions[peer.session] = peer
        self._order(Open(hello.session, hello.description, hello.offers))

    def _add(self, engine: Engine, peer: Peer, ask: Ask) -> None:
        greeted = peer.session and not (peer.parted or peer.opening)
        if not greeted or ask.transfer in peer.transfers:
            return
        self._count += 1
        request = Request(
            f"transfer-{self._count}",
            ask.prompt,
            # No more than the first token is drawn here; what ends an output is for the other side.
            replace(ask.sampling, max_tokens=1),
            target=Target(f"transfer-{self._count}", peer.session, ask.slot, ask.pages),
        )
        try:
            engine.add(request)
        except EngineInputError as error:
            # The mend would be for whoever wrote the prompt, who has to do nothing.
            reason = f"{error.field}: {error.problem}"
            peer.connection.put(Ended(ask.transfer, reason, unfit=True))
            return
        peer.transfers[ask.transfer] = request.id
        self._transfers[request.id] = _Transfer(
            *(peer, ask.transfer, request, time.perf_counter()), set(range(self._ranks))
        )

    def _part(self, engine: Engine, peer: Peer, reason: str) -> list[Event]:
        """Drop all that a decode worker has asked for: it is gone, or can be sent nothing more."""
        if peer.parted:
            return []
        peer.parted = True
        if not peer.session:
            self.peers.dismiss(peer)
            return []
        logger.warning("decode worker %s is dropped: %s", peer.name, reason)
        events = [event for name in list(peer.transfers.values()) for event in engine.abort(name)]
        self._order(Close(peer.session))
        self._release(peer)
        return events

    def _release(self, peer: Peer) -> None:
        """Forget a decode worker that was dropped, once nothing is on its way to it."""
        over = peer.parted and not peer.transfers and not peer.opening
        if over and self._sessions.pop(peer.session, None) is not None:
            self.peers.dismiss(peer)

    def _reported(self, engine: Engine, news: Told) -> list[Event]:
        report = news.report
        self._sent_bytes[news.rank] = max(report.sent_bytes, self._sent_bytes.get(news.rank, 0))
        if report.kind == "opened":
            return self._opened(engine, report)
        transfer = self._transfers.get(report.name)
        if transfer is None or report.kind != "ended":
            return []
        with self._lock:
            transfer.waiting.discard(news.rank)
        events = []
        if report.error is not None:
            # Nobody knows what has arrived: the other side has to give up the whole session.
            events = self._part(engine, transfer.peer, report.error)
        if report.name not in self._transfers:
            return events
        if transfer.memory is None:
            self._settle(engine, transfer)
        elif not transfer.waiting:
            self._end(transfer)
        return events

    def _opened(self, engine: Engine, report: Report) -> list[Event]:
        peer = self._sessions.get(report.name)
        if peer is None:
            return []
        peer.opening -= 1
        if report.error is not None and not peer.parted:
            mend = "see the log of the prefill worker"
            self.peers.refuse(peer, EngineInputError("transfers", report.error, mend))
            return self._part(engine, peer, report.error)
        if not peer.opening and not peer.parted:
            self.peers.welcome(peer)
        self._release(peer)
        return []

    def _complete(self, transfer: _Transfer) -> None:
        """Tell the other side where nothing is missing any more; with the lock."""
        missing = transfer.waiting or transfer.token is None or transfer.memory is not None
        if missing or transfer.done:
            return
        transfer.done = time.perf_counter()
        assert transfer.token is not None
        transfer.peer.connection.put(Done(transfer.number, transfer.token, transfer.logprobs))

    def _settle(self, engine: Engine, transfer: _Transfer) -> None:
        """End a request whose transfer is done."""
        if transfer.done:
            engine.finish(transfer.request)
            self._release(transfer.peer)

    def _end(self, transfer: _Transfer) -> None:
        """Know that nothing of a broken-off transfer is on its way any more, and say so."""
        if transfer.memory is not None:
            transfer.memory.release()
        # Where a rank could not send, its connection says that more has to be done.
        if not transfer.peer.parted:
            transfer.peer.connection.put(Ended(transfer.number, transfer.reason))
        self._forget(transfer)
        self._release(transfer.peer)

    def _forget(self, transfer: _Transfer) -> None:
        if transfer.done:
            self.counts.done += 1
            self.counts.tokens += len(transfer.request.prompt)
            self.counts.seconds += transfer.done - transfer.asked
            self.counts.exposed_seconds += transfer.done - transfer.drawn
        del self._transfers[transfer.request.id]
        del transfer.peer.transfers[transfer.number]
