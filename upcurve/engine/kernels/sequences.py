"""Sequences with several tokens in one step: what kernels over all of them at once are told."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence in the flat batch."""

    start: int
    """Row of the first."""
    length: int
    """Tokens in this step."""
    context: int
    """Tokens already in memory before this step."""
    slot: int
    """Of its state, and row of the page table."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """N chunks, one behind the other, on the device as on the host.

    Rows are counted from the first row of the first chunk.
    """

    slots: torch.Tensor
    """int64 [N]."""
    starts: torch.Tensor
    """int32 [N + 1]: 0, then the row behind the last of each."""
    contexts: torch.Tensor
    """int32 [N]: tokens of each sequence before its first row."""
    chunks: tuple[Chunk, ...]
    """The same, for what counts on the host."""

    @classmethod
    def of(cls, chunks: tuple[Chunk, ...], device: torch.device) -> Sequences:
        """Begin to copy the chunks to the device, in one copy."""
        starts = [0]
        for chunk in chunks:
            starts.append(starts[-1] + chunk.length)
        numbers = torch.tensor(
            [*(chunk.slot for chunk in chunks), *(chunk.context for chunk in chunks), *starts]
        )
        if device.type != "cpu":
            # Only a copy from pinned memory does not wait.
            numbers = numbers.pin_memory().to(device, non_blocking=True)
        count = len(chunks)
        rest = numbers[count:].to(torch.int32)
        return cls(numbers[:count], rest[count:], rest[:count], chunks)
