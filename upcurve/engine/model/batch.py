"""One step's input: all tokens of all scheduled sequences, concatenated."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from upcurve.engine.memory.reservation import Reservation


@dataclass(frozen=True, slots=True)
class SequenceSlice:
    """The part of the flat batch that belongs to one sequence."""

    start: int
    """Row of its first token."""
    length: int
    """Tokens in this step."""
    context: int
    """Tokens already in memory before this step."""
    memory: Reservation


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """What one forward pass computes.

    Sequences of one token that have a context (decodes) come first, so that their rows are one
    slice; prefill chunks follow.
    """

    token_ids: torch.Tensor
    """int64 [T]."""
    positions: torch.Tensor
    """int64 [T]: position of each token in its sequence."""
    sequences: tuple[SequenceSlice, ...]
    logit_rows: torch.Tensor
    """int64 [R]: rows whose logits are wanted."""

    @property
    def decodes(self) -> int:
        """How many leading sequences are decodes of one token."""
        for index, each in enumerate(self.sequences):
            if each.length != 1 or each.context == 0:
                return index
        return len(self.sequences)
