"""What all layers of one step share: computed once from the batch, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from upcurve.engine.kernels.rotary import rotary_table
from upcurve.engine.kernels.sequences import Chunk, Sequences
from upcurve.engine.memory.caches import Caches
from upcurve.engine.model.batch import ForwardBatch
from upcurve.engine.model.shapes import ModelShapes


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Indices and rotation tables of one step; nothing in it was waited for."""

    singles: int
    """Leading rows that are one token of one sequence each."""
    slots: torch.Tensor
    """int64 [singles]: slot of each."""
    lengths: torch.Tensor
    """int32 [singles]: tokens of each sequence, with this one."""
    longest: int
    """At least the largest of them, known to the host."""
    places: torch.Tensor
    """int64 [T]: where each token's key and value go (page * page_size + offset)."""
    chunks: tuple[Chunk, ...]
    """The sequences with more than one token."""
    sequences: Sequences | None
    """The same, on the device; None without any."""
    cos: torch.Tensor
    """float32 [T, 1, rotary_dim]."""
    sin: torch.Tensor


def plan_step(batch: ForwardBatch, shapes: ModelShapes, caches: Caches) -> StepPlan:
    """Prepare one step."""
    positions, size = batch.positions, caches.page_size
    pages = caches.page_tables[batch.slots, positions // size]
    cos, sin = rotary_table(positions, shapes.rotary_dim, shapes.rope_theta)
    return StepPlan(
        singles=batch.singles,
        slots=batch.slots[: batch.singles],
        lengths=(positions[: batch.singles] + 1).to(torch.int32),
        longest=batch.longest,
        places=pages * size + positions % size,
        chunks=batch.chunks,
        sequences=Sequences.of(batch.chunks, positions.device) if batch.chunks else None,
        cos=cos,
        sin=sin,
    )
