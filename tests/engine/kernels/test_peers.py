"""What a rank writes to the others, who are played here, and what it takes from them when."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from tests.engine.kernels.operands import normal
from upcurve.engine.kernels import rms_norm_kernels
from upcurve.engine.kernels.peers import WORDS, Peers, box
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

if HAS_TRITON and INTERPRETED:
    from triton.runtime.interpreter import InterpreterBuilder

pytestmark = pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter")
CPU = torch.device("cpu")
WIDTH, PARTS = 24, 3
SUMS = [3, 1, 2, 3, 1, 3]
"""Rows of one sum after the other."""
CASES = [
    (2, 0, torch.bfloat16, 0),
    (3, 1, torch.float32, 0),
    # Marks begin anew.
    (2, 1, torch.bfloat16, 2**16 - 3),
    (3, 2, torch.bfloat16, 2**31 - 3),
    (2, 0, torch.float32, 2**31 - 3),
    (2, 1, torch.float32, 2**32 - 3),
]
"""Ranks, which of them is not played, type, and turns before."""
cases = pytest.mark.parametrize(("ranks", "index", "dtype", "before"), CASES)


def words(row: torch.Tensor, turn: int) -> torch.Tensor:
    """Return the elements of a row, each below the mark of a turn."""
    half = {2: torch.int16, 4: torch.int32}[row.element_size()]
    mark = torch.full(row.shape, turn, dtype=torch.int64).to(half)
    return torch.stack((row.view(half), mark), -1).view(WORDS[row.dtype]).squeeze(-1)


@contextmanager
def watched(look: Callable[[int], None]) -> Iterator[None]:
    """Call something before each look at what others write, with the address of the first word."""
    load = InterpreterBuilder.create_masked_load

    def watching(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        if rest[-1]:
            look(int(pointers.data.min()))
        return load(self, pointers, mask, *rest)

    with patch.object(InterpreterBuilder, "create_masked_load", watching):
        yield


class Rank:
    """One rank whose others are played: what they write comes when the test says so.

    What all boxes should hold is kept beside them.
    """

    def __init__(self, ranks: int, index: int, dtype: torch.dtype, before: int) -> None:
        self.index, self.dtype, self.rows = index, dtype, max(SUMS)
        self.others = [each for each in range(ranks) if each != index]
        self.boxes = [box(ranks, self.rows, WIDTH, dtype, CPU) for _ in range(ranks)]
        self.peers = Peers.of(index, tuple(self.boxes))
        self.peers.turns.copy_(torch.full((self.rows,), before))
        self.turns = [before] * self.rows
        self.wanted = [each.clone() for each in self.boxes]

    def part(self, rank: int, row: int) -> torch.Tensor:
        """Return what a rank has of a row's next sum."""
        return normal(WIDTH, seed=1000 * rank + 10 * (self.turns[row] % 99) + row).to(self.dtype)

    def add(self, residual: torch.Tensor, bring: Callable[[int, int], None]) -> None:
        """Add the next sum; `bring` is called before each look at a row of another rank."""
        rows = len(residual)
        parts, mixing = normal(rows, PARTS, WIDTH, seed=5).to(self.dtype), torch.zeros(rows, PARTS)
        for row in range(rows):
            # Nobody computed the others.
            parts[row], mixing[row, row % PARTS] = float("nan"), 1
            parts[row, row % PARTS] = self.part(self.index, row)

        def look(address: int) -> None:
            own = self.boxes[self.index]
            place = (address - own.data_ptr()) // own.element_size()
            slot, rank, row, channel = np.unravel_index(place, own.shape)
            turn = self.turns[row] + 1
            assert (slot, rank in self.others, channel) == (turn % 2, True, 0)
            # It has written its own before it waits.
            mine = words(self.part(self.index, int(row)), turn)
            for other in self.others:
                self.wanted[other][slot, self.index, row] = mine
            bring(int(row), int(rank))

        with watched(look):
            rms_norm_kernels.add_norm(
                *(residual, parts, torch.zeros(WIDTH), 1e-6, mixing),
                quantize=False,
                peers=self.peers,
            )
        for row in range(rows):
            self.turns[row] += 1

    def write(self, rank: int, row: int, channels: slice) -> None:
        """Let another rank write some words of a row's next sum."""
        turn = self.turns[row] + 1
        for each in (self.boxes, self.wanted):
            to = each[self.index][turn % 2, rank, row]
            to[channels] = words(self.part(rank, row), turn)[channels]

    def compare(self) -> None:
        """Check that all boxes hold what they should, and nothing else was written over."""
        for found, wanted in zip(self.boxes, self.wanted, strict=True):
            assert torch.equal(found, wanted)

    def sum(self, before: torch.Tensor) -> torch.Tensor:
        """Return the rows of a residual stream after the next sum."""
        after = []
        for row, stream in enumerate(before):
            total = torch.zeros(WIDTH)
            for rank in range(len(self.boxes)):
                total += self.part(rank, row).float()
            after.append((stream.float() + total).to(self.dtype))
        return torch.stack(after)


@cases
def test_no_word_is_taken_before_it_has_come(
    ranks: int, index: int, dtype: torch.dtype, before: int
) -> None:
    rank, chosen = Rank(ranks, index, dtype, before), random.Random(1)
    for rows in SUMS:
        # One word at a time, of all rows and ranks in any order.
        coming = [
            (other, row, slice(channel, channel + 1))
            for other in rank.others
            for row in range(rows)
            for channel in range(WIDTH)
        ]
        chosen.shuffle(coming)
        late: list[tuple[int, int]] = []

        def bring(*place: int, coming: list[Any] = coming, late: list[Any] = late) -> None:
            if coming:
                rank.write(*coming.pop())
            else:
                assert place not in late, "it waits for what has come"
                late.append(place)

        residual = normal(rows, WIDTH, seed=rows).to(dtype)
        wanted = rank.sum(residual)
        rank.add(residual, bring)
        assert coming == []
        assert torch.equal(residual, wanted)


@cases
def test_what_others_may_not_have_read_is_not_written_over(
    ranks: int, index: int, dtype: torch.dtype, before: int
) -> None:
    rank = Rank(ranks, index, dtype, before)
    for rows in SUMS:
        looks: list[tuple[int, int]] = []

        def bring(*place: int, looks: list[Any] = looks) -> None:
            # Others that have not taken their turn may still read the last one.
            rank.compare()
            looks.append(place)
            row, other = place
            rank.write(other, row, slice(None))

        rank.add(normal(rows, WIDTH, seed=rows).to(dtype), bring)
        rank.compare()
        assert looks == [(row, other) for row in range(rows) for other in rank.others]


@cases
def test_rows_count_their_turns_by_themselves(
    ranks: int, index: int, dtype: torch.dtype, before: int
) -> None:
    rank = Rank(ranks, index, dtype, before)
    for rows in SUMS:
        rank.add(
            torch.zeros(rows, WIDTH, dtype=dtype),
            lambda row, other: rank.write(other, row, slice(None)),
        )
    turns = [before + sum(rows > row for rows in SUMS) for row in range(max(SUMS))]
    assert rank.turns == turns
    assert rank.peers.turns.tolist() == torch.tensor(turns).int().tolist()
