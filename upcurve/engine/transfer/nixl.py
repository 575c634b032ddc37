"""NVIDIA's transfer library: its name of memory, and writes into another process's by it.

It chooses what carries the bytes: InfiniBand or RoCE between hosts, what is shared within one.
"""

from __future__ import annotations

import importlib
import socket
import threading
import time
import uuid
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from upcurve.engine.transfer import frames
from upcurve.engine.transfer.acknowledged import AcknowledgedLink
from upcurve.engine.transfer.frames import Frame
from upcurve.engine.transfer.link import Ends, LinkStep, Part, Transfer
from upcurve.engine.transfer.reach import Place, Reach, token_runs
from upcurve.engine.transfer.transport import NIXL_PACKAGES
from upcurve.engine.transfer.views import CacheViews, token_rows

POLL_SECONDS = 1e-4


def write_name(source: int, transfer: str) -> str:
    """Return what a source rank's writes of a transfer are called."""
    return f"{source} {transfer}"


def library() -> Any:
    """Return the library's Python interface.

    Raises:
        OSError: it is not installed, or does not load.
    """
    problem: Exception | None = None
    for name in NIXL_PACKAGES:
        try:
            return importlib.import_module(f"{name}._api")
        except ImportError as error:
            problem = problem or error
    raise OSError(f"nixl cannot be used: {problem}; install upcurve[nixl]")


class Agent:
    """One connection's end; only one thread at a time may use it."""

    def __init__(self, caches: CacheViews) -> None:
        """Register the memory of a rank's caches.

        Raises:
            OSError: the library is not there, or cannot.
        """
        api = library()
        self.name = f"upcurve-{uuid.uuid4().hex}"
        self.device = caches.device.index or 0
        self._kind = "VRAM" if caches.device.type == "cuda" else "DRAM"
        tensors = [caches.rows, caches.recurrent, caches.convolution]
        try:
            self.api = api.nixl_agent(self.name, api.nixl_agent_config(backends=["UCX"]))
            self._registered = self.api.register_memory([each for each in tensors if each.numel()])
        except Exception as error:
            raise OSError(f"nixl cannot be used: {type(error).__name__}: {error}") from error

    def descriptors(self, addresses: np.ndarray, lengths: np.ndarray, device: int) -> Any:
        """Return the library's list of pieces of memory: addresses and bytes, int64 [N]."""
        rows = np.stack([addresses, lengths, np.full(len(lengths), device)], axis=1)
        return self.api.get_xfer_descs(rows.astype(np.uint64), mem_type=self._kind)

    def close(self) -> None:
        """Give up the memory: nobody can write into it any more by its name."""
        if self.api is not None:
            with suppress(Exception):
                self.api.deregister_memory(self._registered)
            self.api = None


class Registration:
    """A decode rank's memory under a name that it gave to the ranks of one prefill worker."""

    def __init__(self, caches: CacheViews) -> None:
        """Register; as `Agent`."""
        self._agent = Agent(caches)
        self.name, self.device = self._agent.name, self._agent.device
        self.metadata: bytes = self._agent.api.get_agent_metadata()
        self.made = time.monotonic()
        self.claimed = False
        """Whether somebody has connected."""
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def seen(self, name: str) -> int | None:
        """Return how many writes of that name are complete; None once it is given up.

        Any thread may ask.
        """
        with self._lock:
            if self._agent.api is None:
                return None
            for names in self._agent.api.get_new_notifs().values():
                self._seen.update(each.decode() for each in names)
            return self._seen[name]

    def forget(self, name: str) -> None:
        """Begin to count anew."""
        with self._lock:
            del self._seen[name]

    def close(self) -> None:
        """Give it up: nobody writes by that name any more, but from within this host."""
        with self._lock:
            self._agent.close()


@dataclass(frozen=True, slots=True)
class Remote:
    """The other end, as the sending one knows it."""

    name: str
    reach: Reach


class NixlLink(AcknowledgedLink):
    """Writes into the target's memory; the other side says when it has seen all that was written.

    Where the connection breaks off, the other side gives its registration up.
    """

    way: ClassVar[str] = "nixl"

    def __init__(
        self,
        ends: Ends,
        agent: Agent,
        remote: Remote,
        connection: socket.socket,
        patience: float,
    ) -> None:
        """Take both ends; else as `AcknowledgedLink`."""
        self._agent, self._remote = agent, remote
        self._posted: deque[Any] = deque()
        self._counts: Counter[str] = Counter()
        super().__init__(ends, connection, patience)

    def _follow(self, ready: torch.cuda.Event) -> None:
        # The library knows no streams.
        ready.synchronize()

    def _keys_values(self, step: LinkStep, place: int) -> None:
        span = self.route.kv_heads
        assert span is not None
        mine, theirs = Place.of(self._source.rows), self._remote.reach.rows
        whole = span.count == mine.shape[3] == theirs.shape[3]
        for part in step.live:
            where = part.first, part.count, self._page_size
            here = token_rows(part.pages, *where, mine.shape[2])
            there = token_rows(part.remote_pages, *where, theirs.shape[2])
            here, there, counts = token_runs(here, there, whole=whole)
            each = mine.strides[3] * span.count
            for kind in range(2):
                self._write(
                    *(part, mine.at(place, kind, here, span.source)),
                    *(theirs.at(place, kind, there, span.target), counts * each),
                )

    def _states(self, part: Part, place: int) -> None:
        heads = self.route.value_heads
        assert heads is not None
        mine, theirs = Place.of(self._source.recurrent), self._remote.reach.recurrent
        once = np.zeros(1, dtype=np.int64)
        self._write(
            *(part, mine.at(place, part.slot, once + heads.source)),
            theirs.at(place, part.remote_slot, once + heads.target),
            (once + heads.count) * mine.strides[2],
        )
        mine, theirs = Place.of(self._source.convolution), self._remote.reach.convolution
        rows = np.arange(mine.shape[2])
        for span in self.route.channels:
            self._write(
                *(part, mine.at(place, part.slot, rows, span.source)),
                theirs.at(place, part.remote_slot, rows, span.target),
                np.full(len(rows), span.count * mine.strides[3]),
            )

    def _write(self, part: Part, here: np.ndarray, there: np.ndarray, lengths: np.ndarray) -> None:
        agent, remote = self._agent, self._remote
        handle = agent.api.initialize_xfer(
            "WRITE",
            agent.descriptors(here, lengths, agent.device),
            agent.descriptors(there, lengths, remote.reach.device),
            remote.name,
            write_name(self.route.source, part.transfer).encode(),
        )
        self._posted.append(handle)
        if agent.api.transfer(handle) == "ERR":
            raise OSError("nixl: a write failed")
        self._counts[part.transfer] += 1
        self.sent_bytes += int(lengths.sum())

    def _end(self, transfer: Transfer) -> None:
        self._settle()
        self._ask(transfer, self._counts.pop(transfer.name, 0))

    def _settle(self) -> None:
        """Wait until what was posted is written.

        Raises:
            OSError: some of it is not, or takes too long.
        """
        until = time.monotonic() + self._patience
        while self._posted:
            state = self._agent.api.check_xfer_state(self._posted[0])
            if state == "ERR" or time.monotonic() > until:
                raise OSError("nixl: a write failed" if state == "ERR" else "nixl: a write hangs")
            if state == "DONE":
                self._agent.api.release_xfer_handle(self._posted.popleft())
            else:
                time.sleep(POLL_SECONDS)

    def _interrupt(self) -> None:
        # A farewell can still be said.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RD)

    def _close(self) -> None:
        said = False
        with suppress(Exception):
            self._settle()
            said = True
        with suppress(Exception):
            self._agent.api.remove_remote_agent(self._remote.name)
        self._posted.clear()
        self._agent.close()
        if said:
            with suppress(OSError):
                frames.send(self._connection, Frame(frames.BYE))
        super()._close()
