"""Rows quantised to FP8 on GPUs, with one scale for every 128 channels, in one kernel.

What is done to the rows before is done in it: they are put in another order, or gated.
"""

from __future__ import annotations

import torch

from upcurve.engine.kernels.quantized import QuantizedRows
from upcurve.engine.platform import overlapping, tl, triton, wait_for_inputs

BLOCK = 128
"""Channels that share a scale."""
SCALES_AT_ONCE = 8
"""Found by one program."""


def quantize(x: torch.Tensor) -> QuantizedRows:
    """Quantise x [T, K], K contiguous, as `block_scaled.quantize_rows`, in one kernel."""
    return QuantizedRows(*quantize_rows(x))


def quantize_rows(
    x: torch.Tensor, order: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise x, or x[order], as `block_scaled.quantize_rows`, in one kernel.

    Args:
        x: [T, K], K contiguous.
        order: int64 [R]; all rows of x where None.

    Returns:
        float8_e4m3fn [R, K], float32 [R, ceil(K / 128)], of which R is contiguous.
    """
    return _quantize(x, order, x.shape[1])


def silu_multiply_quantize(gate_up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise silu(gate) * up, of which nothing is rounded before, in one kernel.

    Args:
        gate_up: [R, 2 I], gate first, contiguous columns.

    Returns:
        float8_e4m3fn [R, I], float32 [R, ceil(I / 128)], of which R is contiguous.
    """
    return _quantize(gate_up, None, gate_up.shape[1] // 2)


def _quantize(
    x: torch.Tensor, order: torch.Tensor | None, depth: int
) -> tuple[torch.Tensor, torch.Tensor]:
    assert x.stride(1) == 1
    count = len(x) if order is None else len(order)
    rows = QuantizedRows.empty(count, depth, x.device)
    groups = rows.scale.numel()
    if count:
        _quantize_rows[(triton.cdiv(groups, SCALES_AT_ONCE),)](
            *(x, order, rows.values, rows.scale, groups, x.stride(0), rows.scale.stride(1)),
            depth=depth,
            gated=depth != x.shape[1],
            tile=SCALES_AT_ONCE,
            **overlapping(x.device),
        )
    return rows.values, rows.scale


@triton.jit  # type: ignore[untyped-decorator]
def _quantize_rows(
    x: tl.tensor,
    order: tl.tensor,
    quantized: tl.tensor,
    scale: tl.tensor,
    groups: tl.tensor,
    row_stride: tl.tensor,
    scale_block: tl.tensor,
    depth: tl.constexpr,
    gated: tl.constexpr,
    tile: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Quantise some groups of 128 channels, each with its scale."""
    wait_for_inputs(early)
    across: tl.constexpr = (depth + 127) // 128
    group = tl.program_id(0) * tile + tl.arange(0, tile)
    row, block = (group // across).to(tl.int64), group % across
    column = block[:, None] * 128 + tl.arange(0, 128)[None, :]
    inside = (group < groups)[:, None] & (column < depth)
    source = row if order is None else tl.load(order + row, mask=group < groups, other=0)
    at = x + source[:, None] * row_stride + column
    values = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    if gated:
        up = tl.load(at + depth, mask=inside, other=0.0).to(tl.float32)
        values = values * tl.sigmoid(values) * up
    found = tl.max(tl.abs(values), 1) / 448.0
    found = tl.where(found < 1.1754943508222875e-38, 1.0, found)
    scaled = (values / found[:, None]).to(tl.float8e4nv)
    tl.store(quantized + row[:, None] * depth + column, scaled, mask=inside)
    tl.store(scale + block * scale_block + row, found, mask=group < groups)
