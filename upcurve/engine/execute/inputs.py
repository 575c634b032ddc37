"""A step's numbers on the host, and their way to the device in one copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from upcurve.engine.execute.sampler import to_device
from upcurve.engine.execute.transfers import Order
from upcurve.engine.kernels.sequences import Chunk
from upcurve.engine.memory.caches import Caches
from upcurve.engine.memory.reservation import Reservation
from upcurve.engine.model.batch import ForwardBatch
from upcurve.engine.schedule.scheduler import Scheduled
from upcurve.engine.transfer.link import Part

ON_DEVICE = -1
"""Stands for a token that was drawn by an earlier step and may not be on the host yet."""


@dataclass(slots=True)
class StepInputs:
    """All rows of a step, its entries of one token first, as the scheduler orders them."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    longest: int = 0
    """Tokens of the longest sequence of those with one token in this step."""
    drawing_rows: list[int] = field(default_factory=list)
    drawing_slots: list[int] = field(default_factory=list)
    beginning_slots: list[int] = field(default_factory=list)
    """Of the sequences that begin with this step."""
    places: list[int] = field(default_factory=list)
    """Of the page table, that it lacks."""
    pages: list[int] = field(default_factory=list)
    """What stands there."""
    gathered_rows: int = 0
    """Most rows of any replica, where replicas share their experts."""
    captured: bool = True
    """Whether the step may be a graph; not where another replica's cannot, or layers are sent."""
    orders: list[Order] = field(default_factory=list)
    """To be obeyed instead of computing a step."""
    parts: list[Part] = field(default_factory=list)
    """Which of its tokens are sent to other engines."""

    @classmethod
    def of(cls, step: Sequence[Scheduled], caches: Caches) -> StepInputs:
        """Lay a step out.

        Raises:
            RuntimeError: an entry has no memory.
        """
        inputs = cls()
        memories = [inputs._append(each) for each in step]
        inputs.places, inputs.pages = caches.unwritten(memories)
        return inputs

    def _append(self, each: Scheduled) -> Reservation:
        request, memory = each.request, each.request.memory
        if memory is None:
            raise RuntimeError(f"request {request.id} is scheduled without memory")
        start, end = len(self.tokens), each.begin + each.count
        if each.count == 1:
            self.tokens.append(
                request.token(each.begin) if each.begin < request.length else ON_DEVICE
            )
            self.longest = max(self.longest, end)
        else:
            self.tokens += request.tokens(each.begin, end)
            self.chunks.append(Chunk(start, each.count, each.begin, memory.slot))
        self.positions += range(each.begin, end)
        self.slots += [memory.slot] * each.count
        if each.begin == 0:
            self.beginning_slots.append(memory.slot)
        if request.target is not None:
            self._send(each, memory)
        if each.draws:
            self.drawing_rows.append(len(self.tokens) - 1)
            self.drawing_slots.append(memory.slot)
        return memory

    def _send(self, each: Scheduled, memory: Reservation) -> None:
        target = each.request.target
        assert target is not None
        # A graph knows of no layers.
        self.captured = False
        self.parts.append(
            Part(
                *(target.transfer, target.session),
                *(memory.slot, memory.pages, target.slot, target.pages),
                *(each.begin, each.count),
                last=each.draws,
            )
        )

    @property
    def rows(self) -> int:
        """Tokens of the step."""
        return len(self.tokens)

    @property
    def decode_only(self) -> bool:
        """Whether every row is one sequence's only token and draws the next."""
        return not self.chunks and len(self.drawing_rows) == self.rows

    def pad(self, rows: int, slot: int) -> None:
        """Fill up to `rows` rows with tokens that nobody asked for, in a slot that is nobody's."""
        more = rows - self.rows
        self.tokens += [0] * more
        self.positions += [0] * more
        self.slots += [slot] * more
        self.longest = max(self.longest, 1)

    def send(self, caches: Caches, device: torch.device) -> SentInputs:
        """Begin to copy everything to the device, and bring the caches up to date with it."""
        parts = (
            *(self.tokens, self.positions, self.slots),
            *(self.drawing_rows, self.drawing_slots, self.beginning_slots),
            *(self.places, self.pages),
        )
        numbers = to_device([number for part in parts for number in part], torch.int64, device)
        _, drawing_rows, drawing_slots, beginning_slots, where, what = numbers.split(
            [3 * self.rows, *(len(part) for part in parts[3:])]
        )
        if self.pages:
            caches.write_tables(where, what)
        if self.beginning_slots:
            caches.clear(beginning_slots)
        by_row = numbers[: 3 * self.rows].view(3, self.rows)
        return SentInputs(by_row, drawing_rows, drawing_slots)

    def batch(
        self,
        sent: SentInputs,
        last_tokens: torch.Tensor,
        written: Callable[[int], None] | None = None,
    ) -> ForwardBatch:
        """Return the input of the forward pass; `last_tokens` is int64 [slots]."""
        tokens, positions, slots = sent.by_row
        return ForwardBatch(
            torch.where(tokens == ON_DEVICE, last_tokens[slots], tokens),
            positions,
            slots,
            singles=self.rows - sum(chunk.length for chunk in self.chunks),
            longest=self.longest,
            chunks=tuple(self.chunks),
            logit_rows=None if len(self.drawing_rows) == self.rows else sent.drawing_rows,
            gathered_rows=self.gathered_rows,
            written=written,
        )


@dataclass(frozen=True, slots=True)
class SentInputs:
    """The numbers of a step on the device."""

    by_row: torch.Tensor
    """int64 [3, T]: tokens, positions, slots."""
    drawing_rows: torch.Tensor
    """int64 [R]."""
    drawing_slots: torch.Tensor
    """int64 [R]."""
