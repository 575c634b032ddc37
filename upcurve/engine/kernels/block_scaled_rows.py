"""Rows quantised to FP8 on GPUs, with one scale for every 128 channels, in one kernel."""

from __future__ import annotations

import torch

from upcurve.engine.kernels.quantized import QuantizedRows
from upcurve.engine.platform import overlapping, tl, triton, wait_for_inputs

SCALES_AT_ONCE = 8
"""Found by one program."""


def quantize(x: torch.Tensor) -> QuantizedRows:
    """Quantise x [T, K], K contiguous, as `block_scaled.quantize_rows`, in one kernel."""
    assert x.stride(1) == 1
    count, depth = x.shape
    rows = QuantizedRows.empty(count, depth, x.device)
    groups = rows.scale.numel()
    if count:
        _quantize[(triton.cdiv(groups, SCALES_AT_ONCE),)](
            *(x, rows.values, rows.scale, groups, x.stride(0), rows.scale.stride(1)),
            depth=depth,
            tile=SCALES_AT_ONCE,
            **overlapping(x.device),
        )
    return rows


@triton.jit(do_not_specialize=["groups"])  # type: ignore[untyped-decorator]
def _quantize(
    x: tl.tensor,
    quantized: tl.tensor,
    scale: tl.tensor,
    groups: tl.tensor,
    row_stride: tl.tensor,
    scale_block: tl.tensor,
    depth: tl.constexpr,
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
    values = tl.load(x + row[:, None] * row_stride + column, mask=inside, other=0.0).to(tl.float32)
    found = tl.max(tl.abs(values), 1) / 448.0
    found = tl.where(found < 1.1754943508222875e-38, 1.0, found)
    scaled = (values / found[:, None]).to(tl.float8e4nv)
    tl.store(quantized + row[:, None] * depth + column, scaled, mask=inside)
    tl.store(scale + block * scale_block + row, found, mask=group < groups)
