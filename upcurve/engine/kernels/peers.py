"""Sums over ranks inside a kernel: each rank writes its rows into the memory of all the others.

Every element travels in a word of twice its size beside a mark, which says of which turn it is, so
that who reads it needs no other sign that it has come: what NCCL calls the LL protocol (arXiv
2507.04786). It asks of the link only that a word of 4 or 8 bytes is written whole, and of no thread
to wait for its own writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from upcurve.engine.platform import tl, triton

WORDS = {torch.bfloat16: torch.int32, torch.float32: torch.int64}
"""What an element and its mark are written as."""


@dataclass(frozen=True, slots=True)
class Peers:
    """The ranks that sum, by the box of each: memory into which all of them write.

    A box is [2, ranks, rows, width] words: of turns with even and odd numbers, from each rank. A
    row counts its turns by itself. Who writes turn n + 2 has read turn n + 1 of all the others, and
    these had read turn n before they wrote it: nothing is written over that is still to be read.
    What lies where a word will come is of two turns before, or 0: marks may begin anew.
    """

    index: int
    """This rank's place among them."""
    addresses: torch.Tensor
    """int64 [ranks]: where this process finds the boxes, by rank, its own included."""
    turns: torch.Tensor
    """int32 [rows]: the last turn of each row."""
    boxes: tuple[torch.Tensor, ...]
    """The same memory, to keep it mapped."""

    @classmethod
    def of(cls, index: int, boxes: tuple[torch.Tensor, ...]) -> Peers:
        """Return what a kernel needs of the boxes, which hold zeros, [2, ranks, rows, width]."""
        own = boxes[index]
        addresses = torch.tensor([each.data_ptr() for each in boxes], dtype=torch.int64)
        turns = torch.zeros(own.shape[2], dtype=torch.int32, device=own.device)
        return cls(index, addresses.to(own.device), turns, boxes)

    @classmethod
    def absent(
        cls, ranks: int, rows: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> Peers:
        """Return the first rank's without the others: for shapes, not for numbers."""
        addresses = torch.empty(ranks, dtype=torch.int64, device=device)
        turns = torch.empty(rows, dtype=torch.int32, device=device)
        return cls(0, addresses, turns, (box(ranks, rows, width, dtype, device),) * ranks)

    @property
    def ranks(self) -> int:
        """How many there are."""
        return len(self.boxes)

    @property
    def rows(self) -> int:
        """The most that a sum may have."""
        return len(self.turns)

    def sums(self, width: int, dtype: torch.dtype) -> bool:
        """Return whether the boxes are for rows of this width and type."""
        own = self.boxes[self.index]
        return own.shape[3] == width and own.dtype == WORDS.get(dtype)


def box(
    ranks: int, rows: int, width: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Return one rank's box, empty."""
    return torch.zeros(2, ranks, rows, width, dtype=WORDS[dtype], device=device)


@triton.jit  # type: ignore[untyped-decorator]
def sum_over_ranks(
    part: tl.tensor,
    row: tl.tensor,
    channel: tl.tensor,
    inside: tl.tensor,
    addresses: tl.tensor,
    turns: tl.tensor,
    index: tl.tensor,
    rows: tl.constexpr,
    width: tl.constexpr,
    ranks: tl.constexpr,
) -> tl.tensor:
    """Return the float32 sum over the ranks of `part`, bf16 or float32 [lanes], in their order.

    All ranks have to call it in one program of each row, and with the same rows. A program takes
    its turn after what the kernels before have written can be read. Where a GPU does not hold all
    programs at once they have to begin in order, which CUB's scans rely on too: then the first row
    that is not summed is in the works on every rank.
    """
    turn = tl.load(turns + row) + 1
    if part.dtype.primitive_bitwidth == 16:
        mark = turn & 0xFFFF
        words = (turn << 16) | part.to(tl.uint16, bitcast=True).to(tl.int32)
    else:
        mark = turn
        words = (turn.to(tl.int64) << 32) | part.to(tl.uint32, bitcast=True).to(tl.int64)
    slot = (turn & 1).to(tl.int64) * ranks
    to = ((slot + index) * rows + row) * width + channel
    for rank in tl.static_range(ranks):
        theirs = tl.load(addresses + rank).to(tl.pointer_type(words.dtype))
        tl.store(tl.multiple_of(theirs, 16) + to, words, mask=inside & (rank != index))
    own = tl.load(addresses + index).to(tl.pointer_type(words.dtype))
    own = tl.multiple_of(own, 16)
    total = tl.zeros_like(part).to(tl.float32)
    for rank in tl.static_range(ranks):
        come = own + ((slot + rank) * rows + row) * width + channel
        missing = (rank != index).to(tl.int32)
        while missing > 0:
            words = tl.load(come, mask=inside, other=0, volatile=True)
            if part.dtype.primitive_bitwidth == 16:
                found = (words >> 16) & 0xFFFF
            else:
                found = (words >> 32).to(tl.int32)
            missing = tl.max(((found != mark) & inside).to(tl.int32), 0)
        if part.dtype.primitive_bitwidth == 16:
            value = words.to(tl.uint16).to(part.dtype, bitcast=True)
        else:
            value = words.to(tl.uint32).to(part.dtype, bitcast=True)
        total += tl.where(rank == index, part, value).to(tl.float32)
    # Every thread has read it before one of them writes it.
    tl.debug_barrier()
    tl.store(turns + row, turn)
    return total
