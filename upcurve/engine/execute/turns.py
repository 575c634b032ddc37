"""Replicas that share their experts step together: nobody begins before all know how large it is.

A replica with a step to launch calls the others, which take part with what they have: where that is
nothing, with one row that is nobody's. The leader of the first replica hears all of them and says
when to begin, and with how many rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from upcurve.engine.execute.inputs import StepInputs
from upcurve.engine.parallel.control import Control
from upcurve.engine.parallel.ranks import Ranks


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    """A replica waits for a turn, with so many rows."""

    turn: int
    rows: int
    decode_only: bool


class Call(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """Another replica waits for a turn."""

    turn: int


class Go(msgspec.Struct, frozen=True, array_like=True, tag="g"):
    """All replicas are ready: most rows of any, and whether all of them only decode."""

    turn: int
    rows: int
    decode_only: bool


Message = Ready | Call | Go
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


@dataclass(slots=True)
class _Turn:
    """What is known of the next turn."""

    number: int = 0
    called: bool = False
    """Another replica waits."""
    ready: bool = False
    """This one waits itself."""


class Turns:
    """One leader's part in the turns of all replicas."""

    def __init__(self, ranks: Ranks, control: Control) -> None:
        self.on_call: Callable[[], None] = lambda: None
        """Called, on any thread, when another replica waits for this one."""
        self._first = ranks.rank == 0
        self._replicas = ranks.replicas.size
        self._rank = ranks.rank
        self._control = control
        self._changed = threading.Condition()
        # Held while the first replica speaks: nobody is called to a turn before the last began.
        self._speaking = threading.Lock()
        self._turn = _Turn()
        self._go = Go(-1, 0, decode_only=True)
        self._waiting: dict[int, Ready] = {}
        """On the first replica: who waits for the next turn."""
        control.hear_turns(self._heard)

    @property
    def called(self) -> bool:
        """Whether another replica waits for this one to take part in a step."""
        return self._turn.called

    def agree(self, inputs: StepInputs) -> None:
        """Wait for all replicas; write into a step how many rows theirs have.

        Raises:
            OSError: the first replica is gone.
        """
        with self._changed:
            turn = self._turn
            turn.ready = True
            ready = Ready(turn.number, inputs.rows, inputs.decode_only)
        if self._first:
            self._collect(self._rank, ready)
        else:
            self._control.say(_encode(ready))
        with self._changed:
            self._changed.wait_for(lambda: self._go.turn == ready.turn)
            inputs.gathered_rows = max(1, self._go.rows)
            inputs.captured = self._go.decode_only

    def _heard(self, rank: int, message: bytes) -> None:
        content = _decode(message)
        if isinstance(content, Ready):
            self._collect(rank, content)
        elif isinstance(content, Call):
            self._call(content)
        else:
            self._begin(content)

    def _collect(self, rank: int, ready: Ready) -> None:
        """On the first replica: note who waits; call the others, or begin."""
        with self._speaking:
            self._waiting[rank] = ready
            waiting = list(self._waiting.values())
            if len(waiting) == self._replicas:
                self._waiting = {}
                go = Go(
                    ready.turn,
                    max(each.rows for each in waiting),
                    all(each.decode_only for each in waiting),
                )
                self._control.say(_encode(go))
                self._begin(go)
            elif len(waiting) == 1:
                call = Call(ready.turn)
                self._control.say(_encode(call))
                self._call(call)

    def _call(self, call: Call) -> None:
        with self._changed:
            turn = self._turn
            turn.called = call.turn == turn.number and not turn.ready
            called = turn.called
        if called:
            self.on_call()

    def _begin(self, go: Go) -> None:
        with self._changed:
            self._go = go
            self._turn = _Turn(go.turn + 1)
            self._changed.notify_all()
