"""The experts: sum over the chosen ones of weight * down(silu(gate x) * up x)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from upcurve.engine.kernels import block_scaled
from upcurve.engine.kernels.block_scaled_product import grouped_plain
from upcurve.engine.kernels.mixing import mix, mix_reference
from upcurve.engine.platform import runs_kernels

FEW_ROWS = 32_768
"""Up to so many rows the own grouped kernel is faster than torch's (benchmarks/block_scaled.py)."""


def dense(
    x: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    gate_up_scale: torch.Tensor | None = None,
    down_scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """One expert over all its tokens.

    Args:
        x: [T, H].
        gate_up: [2 I, H], gate rows first; with its scale float8_e4m3fn.
        down: [H, I], likewise.
        gate_up_scale: float32 [ceil(2 I / 128), ceil(H / 128)], one for each block.
        down_scale: float32 [ceil(H / 128), ceil(I / 128)].

    Returns:
        [T, H].
    """
    gate, up = _product(x, gate_up, gate_up_scale).chunk(2, dim=-1)
    return _product(F.silu(gate) * up, down, down_scale)


def experts_reference(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    gate_up_scale: torch.Tensor | None = None,
    down_scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """Loop over the experts, each with a mask of its tokens.

    Args:
        x: [T, H].
        ids: int64 [T, K].
        weights: float32 [T, K].
        gate_up: [E, 2 I, H]; with its scale float8_e4m3fn.
        down: [E, H, I], likewise.
        gate_up_scale: float32 [E, ceil(2 I / 128), ceil(H / 128)], one for each block.
        down_scale: float32 [E, ceil(H / 128), ceil(I / 128)].

    Returns:
        [T, H] in the dtype of x.
    """
    out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    for expert in torch.unique(ids).tolist():
        rows, choices = torch.where(ids == expert)
        scales = (None if each is None else each[expert] for each in (gate_up_scale, down_scale))
        result = dense(x[rows], gate_up[expert], down[expert], *scales)
        out.index_add_(0, rows, result.float() * weights[rows, choices].unsqueeze(-1))
    return out.to(x.dtype)


def experts_grouped(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    gate_up_scale: torch.Tensor | None = None,
    down_scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the same over rows sorted by expert, in two grouped products.

    Arguments and result as `experts_reference`.
    """
    tokens, choices = ids.shape
    by_expert, order = torch.sort(ids.reshape(-1), stable=True)
    experts = torch.arange(len(gate_up), device=ids.device)
    ends = torch.searchsorted(by_expert, experts, right=True).to(torch.int32)
    source = order // choices
    if gate_up_scale is not None and down_scale is not None:
        scales = (gate_up_scale, down_scale)
        results = block_scaled.experts(x, source, ends, gate_up, scales[0], down, scales[1])
    else:
        gate, up = _grouped_product(x.index_select(0, source), gate_up, ends).chunk(2, dim=-1)
        results = _grouped_product(F.silu(gate) * up, down, ends)
    # Reading rows in another order is fast; writing them in one is not.
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    combine = mix if runs_kernels(x.device) else mix_reference
    return combine(results, back.view(tokens, choices), weights)


def _product(x: torch.Tensor, matrix: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    return F.linear(x, matrix) if scale is None else block_scaled.linear(x, matrix, scale)


def _grouped_product(
    rows: torch.Tensor, matrices: torch.Tensor, ends: torch.Tensor
) -> torch.Tensor:
    """Multiply rows [R, N], sorted by group, by their group's matrix [G, M, N]; ends int32 [G]."""
    if runs_kernels(rows.device) and rows.dtype == torch.bfloat16 and len(rows) <= FEW_ROWS:
        return grouped_plain(rows, matrices, ends)
    # grouped_mm is one kernel on a GPU in bf16 only; on the CPU it visits even the empty groups.
    on_cpu = rows.device.type == "cpu"
    worth_it = 2 * len(rows) > len(matrices) if on_cpu else rows.dtype == torch.bfloat16
    # It takes only rows that are a multiple of 16 bytes.
    if worth_it and rows.shape[1] * rows.element_size() % 16 == 0:
        return F.grouped_mm(rows, matrices.transpose(1, 2), offs=ends)
    out = rows.new_empty(len(rows), matrices.shape[1])
    begin = 0
    for group, end in enumerate(ends.tolist()):
        if end > begin:
            torch.mm(rows[begin:end], matrices[group].t(), out=out[begin:end])
        begin = end
    return out
