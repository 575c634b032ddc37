"""The sending end: a prefill rank's links to all decode ranks that take slices of its caches."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from upcurve.engine.memory.caches import Caches
from upcurve.engine.transfer.connecting import connect
from upcurve.engine.transfer.description import Description, agree
from upcurve.engine.transfer.link import Link, LinkStep, Part, Transfer
from upcurve.engine.transfer.resharding import routes
from upcurve.engine.transfer.transport import Transport
from upcurve.engine.transfer.views import CacheViews

logger = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds that a decode rank may take nothing of what is sent to it."""
CANCELLED = "cancelled"
"""Reported of a transfer that was cancelled and of which nothing more will be written."""


class Outgoing:
    """What one step sends: the forward pass calls `after` behind each layer."""

    def __init__(
        self, steps: Sequence[tuple[Link, LinkStep]], places: dict[int, tuple[bool, int]], gpu: bool
    ) -> None:
        self._steps = steps
        self._places = places
        self._last = max(places, default=-1)
        self._gpu = gpu
        self._states = any(part.last for _, step in steps for _, part in step.parts)

    def after(self, layer: int) -> None:
        """Send what the step has written in a layer, by its index in the model.

        All that writes the layer's caches has to be on the current stream. Returns at once.
        """
        attention, place = self._places[layer]
        if attention or self._states:
            ready = None
            if self._gpu:
                ready = torch.cuda.Event()
                ready.record()
            for link, step in self._steps:
                link.layer(step, place, attention=attention, ready=ready)
        if layer == self._last:
            for link, step in self._steps:
                for transfer, part in step.parts:
                    if part.last:
                        link.end(transfer)


@dataclass(slots=True)
class _Session:
    links: list[Link]
    broken: str | None = None


class Sender:
    """One prefill rank's. The engine's thread calls `step`, and `after` of what it returns.

    `finished(transfer, error)` is called, on some other thread or within a call, once for each
    transfer that a step had a part of: with None when all of it that this rank has is in the
    caches of the decode ranks; with `CANCELLED`; or with why the session is broken, and then the
    decode worker has to `expel` it before it uses that memory for something else. Until then slot
    and pages belong to the transfer: no step may write them. A part that comes after its session
    has broken is reported again.
    """

    def __init__(
        self,
        caches: Caches,
        description: Description,
        rank: int,
        finished: Callable[[str, str | None], None],
        patience: float = PATIENCE,
    ) -> None:
        """Take what is sent.

        Args:
            caches: of this rank.
            description: of its engine.
            rank: among those that share the heads.
            finished: as above; it must not wait.
            patience: seconds that a decode rank may take nothing of what is sent to it, or say
                nothing of what it has got, before its session is broken.
        """
        self._patience = patience
        self._description = description
        self._rank = rank
        self._finished = finished
        self._source = CacheViews.of(caches.kv, caches.recurrent, caches.convolution)
        self._places = {
            **{layer: (True, at) for at, layer in enumerate(description.attention_layers)},
            **{layer: (False, at) for at, layer in enumerate(description.linear_layers)},
        }
        self._sessions: dict[str, _Session] = {}
        self._transfers: dict[str, Transfer] = {}
        self._past_bytes = 0
        self._lock = threading.Lock()

    @property
    def sent_bytes(self) -> int:
        """Bytes of caches that were sent so far."""
        with self._lock:
            links = [link for session in self._sessions.values() for link in session.links]
            return self._past_bytes + sum(link.sent_bytes for link in links)

    def connect(
        self,
        session: str,
        theirs: Description,
        offers: Sequence[bytes],
        transport: Transport = "auto",
    ) -> list[str]:
        """Connect to the ranks of a decode worker; may take seconds.

        Args:
            session: a name that is used for one connection of one worker only.
            theirs: description of its engine.
            offers: of its receivers, by rank.
            transport: "copy" writes from device to device within a host, or within the memory of
                a CPU; "auto" does where it is offered and works, and takes TCP elsewhere.

        Returns:
            The transport of each link.

        Raises:
            EngineInputError: the engines do not agree.
            OSError: a rank cannot be reached, refuses, or cannot do what was asked for.
        """
        agree(self._description, theirs)
        links: list[Link] = []
        try:
            links.extend(
                connect(
                    *(route, self._source, self._description.page_size),
                    *(session, offers[route.target], transport),
                    patience=self._patience,
                    written=self._written,
                    broke=lambda link, reason: self._broke(session, link, reason),
                )
                for route in routes(self._description, self._description.tp, theirs.tp)
                if route.source == self._rank
            )
        except BaseException:
            for link in links:
                link.stop("another rank could not be reached")
                link.start()
            raise
        with self._lock:
            self._sessions[session] = _Session(links)
        for link in links:
            link.start()
            logger.info(
                *("transfers from rank %d to decode rank %d use %s", self._rank),
                *(link.route.target, link.way),
            )
        return [link.way for link in links]

    def disconnect(self, session: str, reason: str = "disconnected") -> None:
        """End a session: what is on its way is reported as failed. Returns at once."""
        with self._lock:
            found = self._sessions.get(session)
            links = list(found.links) if found else []
        for link in links:
            link.stop(reason)

    def step(self, parts: Sequence[Part]) -> Outgoing | None:
        """Prepare to send what a step will compute; None where nothing is to be sent."""
        steps: dict[Link, list[tuple[Transfer, Part]]] = {}
        failed: list[tuple[str, str]] = []
        with self._lock:
            for part in parts:
                links, problem = self._links(part)
                transfer = self._transfers.get(part.transfer)
                if problem is not None:
                    if transfer is None:
                        failed.append((part.transfer, problem))
                    else:
                        transfer.error = problem
                        self._drop(transfer)
                    continue
                if transfer is None:
                    transfer = Transfer(part.transfer, set(links))
                    self._transfers[part.transfer] = transfer
                for link in links:
                    steps.setdefault(link, []).append((transfer, part))
        for name, reason in failed:
            self._finished(name, reason)
        if not steps:
            return None
        each = [(link, LinkStep(found)) for link, found in steps.items()]
        return Outgoing(each, self._places, self._source.device.type == "cuda")

    def _links(self, part: Part) -> tuple[list[Link], str | None]:
        """Return what a part is sent over, and why it cannot be."""
        session = self._sessions.get(part.session)
        if session is None or session.broken is not None:
            return [], "not connected" if session is None else session.broken
        try:
            for link in session.links:
                link.check(part)
        except ValueError as error:
            return [], f"the decode worker's memory: {error}"
        return session.links, None

    def cancel(self, transfer: str) -> None:
        """Send no more of a transfer; `finished` is called once nothing more will be written.

        Nothing happens where it has been reported, or no step had a part of it.
        """
        with self._lock:
            found = self._transfers.get(transfer)
            if found is not None:
                found.error = found.error or CANCELLED
                self._drop(found)

    def close(self) -> None:
        """End all sessions, and wait until nothing is on its way."""
        with self._lock:
            links = [link for session in self._sessions.values() for link in session.links]
        for link in links:
            link.stop("stopped")
        for link in links:
            link.join()

    def _drop(self, transfer: Transfer) -> None:
        transfer.dropped = True
        for link in transfer.waiting:
            link.end(transfer)

    def _written(self, link: Link, transfer: Transfer) -> None:
        with self._lock:
            if link not in transfer.waiting:
                return
            transfer.waiting.discard(link)
            ended = self._ended([transfer])
        self._report(ended)

    def _broke(self, session: str, link: Link, reason: str) -> None:
        with self._lock:
            found = self._sessions.get(session)
            if found is None:
                return
            if found.broken is None:
                found.broken = f"the link to decode rank {link.route.target}: {reason}"
            touched = [each for each in self._transfers.values() if link in each.waiting]
            for transfer in touched:
                transfer.waiting.discard(link)
                transfer.error = found.broken
                self._drop(transfer)
            ended = self._ended(touched)
            found.links.remove(link)
            self._past_bytes += link.sent_bytes
            if not found.links:
                del self._sessions[session]
            others = list(found.links)
        self._report(ended)
        for other in others:
            # A worker with half its ranks is of no use.
            other.stop(reason)

    def _ended(self, transfers: Sequence[Transfer]) -> list[Transfer]:
        ended = [each for each in transfers if not each.waiting]
        for each in ended:
            del self._transfers[each.name]
        return ended

    def _report(self, transfers: Sequence[Transfer]) -> None:
        for each in transfers:
            self._finished(each.name, each.error)
