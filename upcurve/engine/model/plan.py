"""What all layers of one step share: computed once from the batch, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from upcurve.engine.kernels.rotary import rotary_table
from upcurve.engine.memory.memory import Memory
from upcurve.engine.model.batch import ForwardBatch, SequenceSlice
from upcurve.engine.model.shapes import ModelShapes


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Indices, masks and rotation tables of one step."""

    decodes: int
    """Leading rows that are one token of one sequence each."""
    slots: torch.Tensor
    """int64 [decodes]: state slot of each."""
    places: torch.Tensor
    """int64 [T]: where each token's key and value go (page * page_size + offset)."""
    page_tables: torch.Tensor
    """int64 [decodes, P]: pages of each decode, padded with page 0."""
    mask: torch.Tensor
    """[decodes, 1, 1, P * page_size]: 0 where a token is, -inf behind it."""
    chunks: tuple[SequenceSlice, ...]
    """The sequences that are not decodes."""
    cos: torch.Tensor
    """float32 [T, 1, rotary_dim]."""
    sin: torch.Tensor


def plan_step(
    batch: ForwardBatch, shapes: ModelShapes, memory: Memory, dtype: torch.dtype
) -> StepPlan:
    """Prepare one step; the mask has the activation dtype."""
    device, size = memory.device, memory.page_size
    decodes = batch.decodes
    first, rest = batch.sequences[:decodes], batch.sequences[decodes:]
    width = max((-(-(each.context + 1) // size) for each in first), default=0)
    tables = torch.tensor(
        [(each.memory.pages[:width] + [0] * width)[:width] for each in first],
        dtype=torch.int64,
        device=device,
    ).view(decodes, width)
    lengths = batch.positions[:decodes] + 1
    beyond = torch.arange(width * size, device=device) >= lengths.unsqueeze(-1)
    mask = torch.zeros(beyond.shape, dtype=dtype, device=device).masked_fill_(beyond, -torch.inf)
    positions = batch.positions
    pages = torch.empty_like(positions)
    own = positions[:decodes]
    pages[:decodes] = tables.gather(1, (own // size).unsqueeze(-1)).squeeze(-1)
    for each in rest:
        rows = slice(each.start, each.start + each.length)
        pages[rows] = each.memory.page_table[positions[rows] // size]
    cos, sin = rotary_table(positions, shapes.rotary_dim, shapes.rope_theta)
    return StepPlan(
        decodes=decodes,
        slots=torch.tensor([each.memory.slot for each in first], dtype=torch.int64, device=device),
        places=pages * size + positions % size,
        page_tables=tables,
        mask=mask[:, None, None],
        chunks=rest,
        cos=cos,
        sin=sin,
    )
