"""From one prefill rank to one decode rank: a thread that does what the engine asks for, in order.

Nothing is read before the step that writes it has been launched, and nothing after the transfer has
been reported: until then nobody else may write the slot and the pages that it comes from.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import ClassVar

import numpy as np
import torch

from upcurve.engine.transfer.offer import Offer
from upcurve.engine.transfer.resharding import Route
from upcurve.engine.transfer.views import CacheViews, check_rows


@dataclass(frozen=True, slots=True)
class Part:
    """The tokens of one request that one step computes and a decode worker shall have."""

    transfer: str
    """Name of the request among all that this engine sends."""
    session: str
    """Name of the connected decode worker."""
    slot: int
    pages: list[int]
    """Of the whole request, as `remote_pages`."""
    remote_slot: int
    remote_pages: list[int]
    first: int
    """Position of the first token of this step."""
    count: int
    last: bool
    """Whether they are the last ones: then the states are sent too."""


@dataclass(slots=True, eq=False)
class Transfer:
    """One request on its way, over all links that its parts take."""

    name: str
    waiting: set[Link] = field(default_factory=set)
    """Links that have not written all of it, or might still write."""
    dropped: bool = False
    """Nothing more of it shall be written."""
    error: str | None = None


@dataclass(slots=True)
class LinkStep:
    """What one step sends over one link."""

    parts: Sequence[tuple[Transfer, Part]]

    @property
    def live(self) -> list[Part]:
        """The parts that are still wanted."""
        return [part for transfer, part in self.parts if not transfer.dropped]


@dataclass(frozen=True, slots=True)
class _Layer:
    step: LinkStep
    place: int
    """Among the layers of its kind."""
    attention: bool
    ready: torch.cuda.Event | None
    """When the layer is written; None on the CPU, where it is."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What a link connects, and whom it tells."""

    route: Route
    """Which slices are sent."""
    source: CacheViews
    """The caches of this rank."""
    page_size: int
    """Tokens of a page, on both sides."""
    offer: Offer
    """Of the target."""
    written: Callable[[Link, Transfer], None]
    """Called on the link's thread when all of a transfer that was ended is in the target's caches,
    or all that was not dropped."""
    broke: Callable[[Link, str], None]
    """Called there once, with the reason, when the link will write nothing any more."""


class Link(ABC):
    """The common part of all transports; `start` starts the thread."""

    way: ClassVar[str]
    """Name of the transport."""

    def __init__(self, ends: Ends) -> None:
        """Take what is sent, and whom to tell."""
        self.route = ends.route
        self.sent_bytes = 0
        self._source = ends.source
        self._page_size = ends.page_size
        self._offer = ends.offer
        self._written = ends.written
        self._broke = ends.broke
        self._jobs: SimpleQueue[_Layer | Transfer | None] = SimpleQueue()
        self._reason: str | None = None
        self._stream = (
            torch.cuda.Stream(ends.source.device) if ends.source.device.type == "cuda" else None
        )
        self._thread = threading.Thread(target=self._run, name="upcurve-link", daemon=True)

    def start(self) -> None:
        """Begin to send what is asked for."""
        self._thread.start()

    def check(self, part: Part) -> None:
        """Check that a part names a place of the target that can be owned.

        Raises:
            ValueError: it does not.
        """
        if not 0 <= part.remote_slot < self._offer.slots:
            raise ValueError(f"slot {part.remote_slot} of {self._offer.slots}")
        rows = np.asarray(part.remote_pages, dtype=np.int64) * self._page_size
        check_rows(rows, self._page_size, self._offer.total_rows)
        if part.first + part.count > len(rows) * self._page_size:
            raise ValueError(f"token {part.first + part.count} is not in {len(rows)} pages")

    def layer(
        self, step: LinkStep, place: int, *, attention: bool, ready: torch.cuda.Event | None
    ) -> None:
        """Send what a step wrote in a layer, once it is ready; returns at once."""
        self._jobs.put(_Layer(step, place, attention, ready))

    def end(self, transfer: Transfer) -> None:
        """Report a transfer once all that was asked for before is written; returns at once."""
        self._jobs.put(transfer)

    def stop(self, reason: str) -> None:
        """Write nothing more; the link is then broken for that reason. Returns at once."""
        if self._reason is None:
            self._reason = reason
        self._interrupt()
        self._jobs.put(None)

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    @abstractmethod
    def _keys_values(self, step: LinkStep, place: int) -> None:
        """Send the tokens of a step in one layer."""

    @abstractmethod
    def _states(self, part: Part, place: int) -> None:
        """Send the states of a request in one layer."""

    @abstractmethod
    def _end(self, transfer: Transfer) -> None:
        """See to it that `written` is called."""

    @abstractmethod
    def _close(self) -> None:
        """Give back what the link holds; nothing may be on its way to the target afterwards."""

    @abstractmethod
    def _interrupt(self) -> None:
        """End what the thread might wait for."""

    def _follow(self, ready: torch.cuda.Event) -> None:
        """Let what is sent next wait for a layer."""
        assert self._stream is not None
        self._stream.wait_event(ready)

    def _side(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            with self._side():
                while self._reason is None and (job := self._jobs.get()) is not None:
                    if isinstance(job, Transfer):
                        self._end(job)
                    elif self._reason is None:
                        self._layer(job)
        except Exception as error:
            if self._reason is None:
                self._reason = f"{type(error).__name__}: {error}"
        finally:
            with suppress(Exception):
                self._close()
            self._broke(self, self._reason or "stopped")

    def _layer(self, job: _Layer) -> None:
        if job.ready is not None:
            self._follow(job.ready)
        if job.attention:
            if self.route.kv_heads is not None:
                self._keys_values(job.step, job.place)
        elif self.route.value_heads is not None:
            for part in job.step.live:
                if part.last:
                    self._states(part, job.place)
