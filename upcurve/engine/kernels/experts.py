"""The experts: sum over the chosen ones of weight * down(silu(gate x) * up x)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from upcurve.engine.kernels import block_scaled, block_scaled_rows, matrix_vector
from upcurve.engine.kernels.expert_down import down as multiply_down
from upcurve.engine.kernels.expert_gate_up import gate_up as multiply_gate_up
from upcurve.engine.kernels.expert_order import sort_by_expert
from upcurve.engine.kernels.quantized import QuantizedRows
from upcurve.engine.kernels.tiles import FEW_ROWS
from upcurve.engine.platform import runs_kernels

FEW_SLOTS = 72
"""Up to so many choices of all tokens hardly any two share an expert: each is a product by itself,
and nothing is sorted (benchmarks/experts.py)."""


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
        ids: int32 [T, K]; those of E or above count nothing.
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
        if expert >= len(gate_up):
            continue
        rows, choices = torch.where(ids == expert)
        scales = (None if each is None else each[expert] for each in (gate_up_scale, down_scale))
        result = dense(x[rows], gate_up[expert], down[expert], *scales)
        out.index_add_(0, rows, result.float() * weights[rows, choices].unsqueeze(-1))
    return out.to(x.dtype)


def experts_grouped(
    x: torch.Tensor,
    ids: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    gate_up_scale: torch.Tensor | None = None,
    down_scale: torch.Tensor | None = None,
    quantized: QuantizedRows | None = None,
) -> torch.Tensor:
    """Compute each choice by itself, over rows sorted by expert; who takes it weighs and sums.

    On a GPU two launches for a few tokens, up to four for many; none waits for the device.

    Args:
        x: [T, H].
        ids: int32 [T, K], contiguous; E is nobody, whose results are not computed.
        gate_up: [E, 2 I, H], gate rows first; with its scale float8_e4m3fn.
        down: [E, H, I], likewise.
        gate_up_scale: float32 [E, ceil(2 I / 128), ceil(H / 128)], one for each block.
        down_scale: float32 [E, ceil(H / 128), ceil(I / 128)].
        quantized: x in FP8, where that is known already.

    On a GPU I is a multiple of 128 where weights are FP8.

    Returns:
        [T, K, H] in the dtype of x; on a GPU results of nobody are whatever was there.
    """
    if not runs_kernels(x.device):
        results = _sorted_in_torch(x, ids, gate_up, down, gate_up_scale, down_scale)
    elif ids.numel() <= FEW_SLOTS:
        inner = matrix_vector.gate_up_row(x, gate_up, gate_up_scale, ids)
        results = matrix_vector.down_row(inner, down, down_scale, ids)
    else:
        order, ends = sort_by_expert(ids, len(gate_up))
        rows = x if gate_up_scale is None else quantized or block_scaled_rows.quantize(x)
        inner = multiply_gate_up(
            rows, gate_up, gate_up_scale, order, ends, choices=ids.shape[1], dtype=x.dtype
        )
        many = ids.numel() > FEW_ROWS * len(down)
        known = block_scaled_rows.quantize(inner) if down_scale is not None and many else inner
        results = multiply_down(known, down, down_scale, order, ends, dtype=x.dtype)
    return results.view(*ids.shape, x.shape[1])


def _sorted_in_torch(
    x: torch.Tensor,
    ids: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    gate_up_scale: torch.Tensor | None,
    down_scale: torch.Tensor | None,
) -> torch.Tensor:
    """Return [T * K, H], one choice a row."""
    order, ends = sort_by_expert(ids, len(gate_up))
    order = order[: ends[-1]]
    rows = x.index_select(0, order // ids.shape[1])
    gate, up = _grouped_product(rows, gate_up, gate_up_scale, ends).chunk(2, dim=-1)
    results = _grouped_product(F.silu(gate) * up, down, down_scale, ends)
    back = results.new_zeros(ids.numel(), results.shape[1])
    back[order] = results
    return back


def _product(x: torch.Tensor, matrix: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    return F.linear(x, matrix) if scale is None else block_scaled.linear(x, matrix, scale)


def _grouped_product(
    rows: torch.Tensor, matrices: torch.Tensor, scale: torch.Tensor | None, ends: torch.Tensor
) -> torch.Tensor:
    """Multiply rows [R, N], sorted by group, by their group's matrix [G, M, N]; ends int32 [G]."""
    if scale is not None:
        return block_scaled.grouped_reference(rows, matrices, scale, ends)
    # grouped_mm visits even the empty groups, and takes only rows of a multiple of 16 bytes.
    if 2 * len(rows) > len(matrices) and rows.shape[1] * rows.element_size() % 16 == 0:
        return F.grouped_mm(rows, matrices.transpose(1, 2), offs=ends)
    out = rows.new_empty(len(rows), matrices.shape[1])
    begin = 0
    for group, end in enumerate(ends.tolist()):
        if end > begin:
            torch.mm(rows[begin:end], matrices[group].t(), out=out[begin:end])
        begin = end
    return out
