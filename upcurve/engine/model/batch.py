"""One step's input: all tokens of all scheduled sequences, concatenated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from upcurve.engine.kernels.sequences import Chunk


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """What one forward pass computes.

    The first `singles` rows are one token of one sequence each; chunks follow. Nothing here says
    where a token comes from: a decode's token may never have been on the host.
    """

    token_ids: torch.Tensor
    """int64 [T]."""
    positions: torch.Tensor
    """int64 [T]: position of each token in its sequence."""
    slots: torch.Tensor
    """int64 [T]: slot of the sequence of each token."""
    singles: int
    longest: int
    """Tokens of the longest of the singles' sequences, with this one; 0 without singles."""
    chunks: tuple[Chunk, ...]
    logit_rows: torch.Tensor | None
    """int64 [R]: rows whose logits are wanted; None where all are."""
    gathered_rows: int = 0
    """Most rows of any replica in this step, where replicas share their experts."""
    written: Callable[[int], None] | None = None
    """Called with the index of each layer once what it writes into the caches is enqueued."""
