"""The experts: sum over the chosen ones of weight * down(silu(gate x) * up x)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

GATHERED_BYTES = 24 * 2**20
"""Gathering weights copies them: beyond this much a pass per expert is cheaper."""


def dense(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """One expert over all its tokens.

    Args:
        x: [T, H].
        gate_up: [2 I, H], gate rows first.
        down: [H, I].

    Returns:
        [T, H].
    """
    gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down)


def experts_reference(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    """Loop over the experts, each with a mask of its tokens.

    Args:
        x: [T, H].
        ids: int64 [T, K].
        weights: float32 [T, K].
        gate_up: [E, 2 I, H].
        down: [E, H, I].

    Returns:
        [T, H] in the dtype of x.
    """
    out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    for expert in torch.unique(ids).tolist():
        rows, choices = torch.where(ids == expert)
        result = dense(x[rows], gate_up[expert], down[expert])
        out.index_add_(0, rows, result.float() * weights[rows, choices].unsqueeze(-1))
    return out.to(x.dtype)


def experts_grouped(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    """Compute the same in a few batched products: arguments as `experts_reference`."""
    gathered = ids.numel() * (gate_up[0].numel() + down[0].numel()) * x.element_size()
    if gathered <= GATHERED_BYTES:
        return _gathered(x, ids, weights, gate_up, down)
    return _segments(x, ids, weights, gate_up, down)


def _gathered(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    """Few tokens: every (token, choice) multiplies its own copy of the expert's weights."""
    tokens, choices = ids.shape
    flat = ids.reshape(-1)
    rows = x.unsqueeze(1).expand(tokens, choices, -1).reshape(tokens * choices, -1, 1)
    gate, up = torch.bmm(gate_up.index_select(0, flat), rows).chunk(2, dim=1)
    out = torch.bmm(down.index_select(0, flat), F.silu(gate) * up).view(tokens, choices, -1)
    return torch.bmm(weights.to(x.dtype).unsqueeze(1), out).squeeze(1)


def _segments(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    """Many tokens: sorted by expert, one pass over each expert's contiguous rows."""
    tokens, choices = ids.shape
    flat = ids.reshape(-1)
    order = torch.argsort(flat, stable=True)
    rows = x.index_select(0, order // choices)
    counts = torch.bincount(flat, minlength=len(gate_up)).tolist()
    outs = [
        dense(part, gate_up[expert], down[expert])
        for expert, part in enumerate(rows.split(counts))
        if len(part)
    ]
    out = torch.empty_like(rows)
    out[order] = torch.cat(outs)
    return torch.bmm(weights.to(x.dtype).unsqueeze(1), out.view(tokens, choices, -1)).squeeze(1)
