"""The part of a decode worker's engine: asks for prompts, and takes what has been computed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.event import Event, TokenLogprobs
from upcurve.engine.execute.role import TransferCounts
from upcurve.engine.execute.transfers import Expel, Invite, Order, Report, Told
from upcurve.engine.memory.reservation import Reservation
from upcurve.engine.roles.inbox import Inbox
from upcurve.engine.roles.links import Answered, Found, Link, Links, Lost, News
from upcurve.engine.roles.messages import Ask, Cancel, Done, Ended, Hello
from upcurve.engine.schedule.request import Phase, Request

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Transfer:
    """A prompt that somebody else computes, or may still be writing."""

    number: int
    link: Link
    session: str
    request: Request | None
    """None where it has gone on without this."""
    asked: float
    """time.perf_counter()."""
    memory: Reservation | None = None
    """Without a request: what has to be freed."""


@dataclass(slots=True)
class _Course:
    """What a request has tried."""

    tried: set[Link] = field(default_factory=set)
    local: bool = False
    """Whether its prompt is computed here."""


class DecodeRole(Inbox[News | Told]):
    """Admitted requests get memory here and their prompts elsewhere.

    Memory that was named to a prefill worker is given to nobody else before that worker, or its
    end, says that nothing more will be written.
    """

    name: Literal["prefill", "decode"] = "decode"

    def __init__(
        self,
        description: bytes,
        order: Callable[[Order], None],
        ranks: int,
        prefill_below: int,
    ) -> None:
        """Begin without transfers.

        Args:
            description: of the caches of this engine.
            order: hands an order to all ranks of this engine, on its thread.
            ranks: how many they are.
            prefill_below: shorter prompts are computed here.
        """
        super().__init__()
        self.counts = TransferCounts()
        self.links: Links
        """To prefill workers; they tell their news to `tell`."""
        self._description = description
        self._order = order
        self._ranks = ranks
        self._prefill_below = prefill_below
        self._transfers: dict[int, _Transfer] = {}
        self._by_request: dict[str, _Transfer] = {}
        self._courses: dict[str, _Course] = {}
        self._greeting: dict[str, tuple[Link, dict[int, bytes]]] = {}
        """Sessions that begin, and how ranks can be reached, as far as they have said."""
        self._expelling: dict[str, int] = {}
        """Sessions that are over, and the ranks in whose caches they might still write."""
        self._unfit: set[Link] = set()
        """Who has given back a prompt that does not fit there, which has been said."""
        self._last = 0

    @property
    def kept(self) -> int:
        """Reservations that no request owns."""
        return sum(each.memory is not None for each in self._transfers.values())

    def wants(self, request: Request) -> bool:
        """Return whether a prompt is to be computed elsewhere, and somebody is there to do it."""
        if request.output or len(request.prompt) < self._prefill_below:
            return False
        course = self._courses.setdefault(request.id, _Course())
        if not course.local and self.links.choose(course.tried) is None:
            course.local = True
            self.counts.local += 1
        return not course.local

    def attend(self, engine: Engine) -> list[Event]:
        """Act on what prefill workers and own ranks have told."""
        events: list[Event] = []
        while self._news:
            news = self._news.popleft()
            if isinstance(news, Told):
                self._reported(news)
            elif isinstance(news, Found):
                self._greeting[news.session] = news.link, {}
                self._order(Invite(news.session))
            elif isinstance(news, Answered):
                events += self._answered(engine, news)
            else:
                self._abandon(engine, news)
        self._count()
        return events

    def flush(self, engine: Engine) -> None:
        """Ask for what was admitted: no step that still writes there is on its way."""
        fresh, engine.scheduler.left = engine.scheduler.left, []
        for request in fresh:
            if request.phase is Phase.RECEIVING:
                self._ask(request)
        self._count()

    def drawn(
        self,
        engine: Engine,  # noqa: ARG002
        request: Request,
        token: int,  # noqa: ARG002
        top: TokenLogprobs | None,  # noqa: ARG002
    ) -> None:
        """Refuse: nothing is computed here for others."""
        raise RuntimeError(f"request {request.id} of a decode worker has a target")

    def leave(self, request: Request, reason: str | None) -> None:  # noqa: ARG002
        """Keep the memory of a request that ends while somebody may write there."""
        self._courses.pop(request.id, None)
        transfer = self._by_request.get(request.id)
        if transfer is not None:
            self.counts.cancelled += 1
            self._keep(transfer)
            transfer.link.put(Cancel(transfer.number))

    def close(self) -> None:
        """End all connections."""
        for link in self.links.all:
            link.close()

    def _ask(self, request: Request) -> None:
        course = self._courses[request.id]
        while (link := self.links.choose(course.tried)) is not None:
            again = bool(course.tried)
            self._last += 1
            # Before it goes out: the other end's clock runs from its arrival.
            asked = time.perf_counter()
            session = link.put(Ask.of(self._last, request))
            if session is None:
                course.tried.add(link)
                continue
            self.counts.retried += again
            transfer = _Transfer(self._last, link, session, request, asked)
            self._transfers[transfer.number] = self._by_request[request.id] = transfer
            link.asked.add(transfer.number)
            return
        # All are gone since it was admitted.
        course.local = True
        self.counts.local += 1
        request.phase = Phase.PREFILLING

    def _answered(self, engine: Engine, news: Answered) -> list[Event]:
        message = news.message
        transfer = self._transfers.get(message.transfer)
        if transfer is None or transfer.link is not news.link:
            return []
        request = self._forget(transfer)
        if request is None:
            return []
        if isinstance(message, Done):
            self.counts.done += 1
            self.counts.tokens += len(request.prompt)
            self.counts.seconds += time.perf_counter() - transfer.asked
            self._courses.pop(request.id, None)
            request.computed = len(request.prompt)
            request.phase = Phase.DECODING
            return [engine.take(request, message.token, message.logprobs)]
        self.counts.failed += 1
        self._warn(news.link, message)
        self._courses[request.id].tried.add(news.link)
        # Its memory is nobody else's, and nobody writes there.
        self._ask(request)
        return []

    def _warn(self, link: Link, ended: Ended) -> None:
        """Say why a prompt came back; of those that do not fit the first, metrics count all."""
        if link in self._unfit and ended.unfit:
            return
        rest = ""
        if ended.unfit:
            self._unfit.add(link)
            rest = "; more that do not fit are only counted, in transfers_failed"
        logger.warning("prefill worker %s gave a prompt back: %s%s", link.name, ended.reason, rest)

    def _abandon(self, engine: Engine, news: Lost) -> None:
        """Go on without a prefill worker; what it may still write to is kept."""
        back = []
        for transfer in self._of(news.session):
            if transfer.request is not None:
                self.counts.failed += 1
                self._courses[transfer.request.id].tried.add(news.link)
                back.append(transfer.request)
                self._keep(transfer)
        if back:
            logger.warning("%d prompts begin anew without %s", len(back), news.link.name)
        engine.scheduler.send_back(back)
        # Who comes back may be another.
        self._unfit.discard(news.link)
        self._expelling[news.session] = self._ranks
        self._order(Expel(news.session))

    def _reported(self, news: Told) -> None:
        report = news.report
        if report.kind == "offer":
            link, offers = self._greeting[report.name]
            offers[news.rank] = report.offer
            if len(offers) == self._ranks:
                del self._greeting[report.name]
                ordered = [offers[rank] for rank in range(self._ranks)]
                link.greet(Hello(report.name, self._description, ordered))
        elif report.kind == "expelled":
            self._expelled(report)

    def _expelled(self, report: Report) -> None:
        self._expelling[report.name] -= 1
        if not self._expelling[report.name]:
            del self._expelling[report.name]
            for transfer in self._of(report.name):
                self._forget(transfer)

    def _of(self, session: str) -> list[_Transfer]:
        return [each for each in self._transfers.values() if each.session == session]

    def _keep(self, transfer: _Transfer) -> None:
        """Take the memory from a request, which goes on or ends without this transfer."""
        request = transfer.request
        assert request is not None
        del self._by_request[request.id]
        transfer.request, transfer.memory = None, request.part()

    def _forget(self, transfer: _Transfer) -> Request | None:
        """Know that nothing more is written; return the request that has waited for it."""
        del self._transfers[transfer.number]
        transfer.link.asked.discard(transfer.number)
        if transfer.memory is not None:
            transfer.memory.release()
        if transfer.request is not None:
            del self._by_request[transfer.request.id]
        return transfer.request

    def _count(self) -> None:
        self.counts.in_flight = len(self._by_request)
        self.counts.kept = self.kept
