"""What ranks tell each other beside tensors: plans of steps, and that they are still there."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import SimpleQueue

from torch._C._distributed_c10d import Store

from upcurve.engine.parallel.channel import Channel, accept, connect
from upcurve.engine.parallel.ranks import Ranks

STOP, PLAN, TURN, FAREWELL, FAILED, REPORT = b"s", b"p", b"t", b"f", b"e", b"r"
"""What a frame is, in its first byte."""
STOP_SECONDS = 10.0
"""How long a leader may be without the first rank while all are being stopped."""


class Control:
    """The connections of one rank.

    Every rank has one to the first, by which the end of either is seen at once, whatever the other
    is waiting for; and one to the leader of its replica, where that is another.
    """

    def __init__(self, ranks: Ranks, store: Store, host: str, lost: Callable[[str], None]) -> None:
        """Connect; return once all ranks have.

        Args:
            ranks: of this process.
            store: that all share.
            host: address of this rank on the network that all share.
            lost: called with a reason, on a thread of its own, when a rank that is needed is gone.
        """
        layout, rank = ranks.layout, ranks.rank
        self.plans: SimpleQueue[bytes] = SimpleQueue()
        """Of the leader, in order."""
        self.reports: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
        """Of the ranks that follow this one: rank and message."""
        self._turns: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
        self._lost = lost
        self._parting = False
        self._leads = ranks.leads
        leader = rank - rank % layout.tp
        others = range(1, layout.engine_ranks) if rank == 0 else range(rank + 1, rank + layout.tp)
        self._members: dict[int, Channel] = {}
        if ranks.leads and others:
            self._members = self._gather(store, host, rank, others)
        self._first = None if rank == 0 else self._join(store, 0, rank)
        self._leader = self._join(store, leader, rank) if leader not in (0, rank) else None
        for each, channel in self._members.items():
            channel.serve(lambda data, each=each: self._heard(each, data), self._ended(each))  # type: ignore[misc]
        for each, above in ((0, self._first), (leader, self._leader)):
            if above is not None:
                above.serve(lambda data, each=each: self._heard(each, data), self._ended(each))  # type: ignore[misc]
        self._followers = [
            channel for each, channel in self._members.items() if rank < each < rank + layout.tp
        ]
        self._leaders = {
            each: channel for each, channel in self._members.items() if each % layout.tp == 0
        }

    def hear_turns(self, take: Callable[[int, bytes], None]) -> None:
        """Hand over, on a thread of its own, what leaders of other replicas say and have said."""

        def run() -> None:
            while True:
                take(*self._turns.get())

        threading.Thread(target=run, name="upcurve-turns", daemon=True).start()

    def announce(self, plan: bytes) -> None:
        """Tell the ranks of this replica what to compute next.

        Raises:
            OSError: one of them is gone.
        """
        for channel in self._followers:
            channel.send(PLAN + plan)

    def say(self, message: bytes) -> None:
        """Tell the leaders of all other replicas; on others than the first, tell that one."""
        for channel in self._leaders.values() if self._first is None else (self._first,):
            channel.send(TURN + message)

    def report(self, message: bytes) -> None:
        """Tell the leader of this replica something; nothing happens where it is gone."""
        above = self._leader or self._first
        if above is not None:
            _send((above,), REPORT + message)

    def part(self) -> None:
        """Say that this rank ends because it was told to; those that follow it end as well."""
        self._parting = True
        _send(self._members.values(), STOP)
        _send(self._above(), FAREWELL)

    def fail(self, reason: str) -> None:
        """Tell the first rank and the leader why this one ends."""
        _send(self._above(), FAILED + reason.encode())

    def _above(self) -> list[Channel]:
        return [each for each in (self._first, self._leader) if each is not None]

    def _heard(self, rank: int, data: bytes) -> None:
        kind, message = data[:1], data[1:]
        if kind == PLAN:
            self.plans.put(message)
        elif kind == TURN:
            self._turns.put((rank, message))
        elif kind == REPORT:
            self.reports.put((rank, message))
        elif kind == FAILED:
            self._lost(message.decode())
        elif kind == FAREWELL or self._leads:
            # The own server is stopped as well, by now; if not, nothing can be computed any more.
            self._parting = True
            late = threading.Timer(STOP_SECONDS, self._lost, [f"rank {rank} was stopped"])
            late.daemon = True
            late.start()
        else:
            # What is being computed is for nobody any more.
            os._exit(0)

    def _ended(self, rank: int) -> Callable[[], None]:
        def ended() -> None:
            if not self._parting:
                self._lost(f"rank {rank} ended")

        return ended

    @staticmethod
    def _gather(store: Store, host: str, rank: int, others: range) -> dict[int, Channel]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, 0), family=family) as listener:
            store.set(_key(rank), f"{host} {listener.getsockname()[1]}")
            return accept(listener, len(others))

    @staticmethod
    def _join(store: Store, other: int, rank: int) -> Channel:
        host, port = store.get(_key(other)).decode().split()
        return connect(host, int(port), rank)


def _send(channels: Iterable[Channel], message: bytes) -> None:
    for channel in channels:
        with suppress(OSError):
            channel.send(message)


def _key(rank: int) -> str:
    return f"upcurve/control/{rank}"
