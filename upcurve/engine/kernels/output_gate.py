"""The output gate of attention: rows times sigmoid(gate), in FP8 too where a product takes it."""

from __future__ import annotations

import torch

from upcurve.engine.kernels import block_scaled_rows
from upcurve.engine.kernels.quantized import QuantizedRows
from upcurve.engine.platform import overlapping, runs_kernels, tl, triton, wait_for_inputs

CHANNELS_AT_ONCE = 2048
"""Of a program."""


def gate_rows(
    x: torch.Tensor, gate: torch.Tensor, *, quantize: bool = False
) -> tuple[torch.Tensor, QuantizedRows | None]:
    """Multiply by sigmoid(gate) in float32; one launch on a GPU.

    Args:
        x: [T, heads, D], D contiguous.
        gate: likewise.
        quantize: give the rows in FP8 too.

    Returns:
        [T, heads * D] in the dtype of x; and in FP8.
    """
    if runs_kernels(x.device):
        rows, quantized = gate_in_one(x, gate, quantize=quantize)
        if quantize and quantized is None:
            quantized = block_scaled_rows.quantize(rows)
        return rows, quantized
    return (x.float() * torch.sigmoid(gate.float())).to(x.dtype).flatten(1), None


def gate_in_one(
    x: torch.Tensor, gate: torch.Tensor, *, quantize: bool
) -> tuple[torch.Tensor, QuantizedRows | None]:
    """Compute `gate_rows` as a kernel; in FP8 only where heads are whole blocks of 128 channels."""
    tokens, heads, width = x.shape
    assert x.stride(2) == gate.stride(2) == 1
    rows = torch.empty(tokens, heads * width, dtype=x.dtype, device=x.device)
    quantized = None
    if quantize and width % 128 == 0:
        quantized = QuantizedRows.empty(tokens, heads * width, x.device)
    lanes = triton.next_power_of_2(width)
    at_once = min(triton.next_power_of_2(heads), max(1, CHANNELS_AT_ONCE // lanes))
    if tokens:
        _gate[(tokens, triton.cdiv(heads, at_once))](
            *(x, gate, rows),
            *((None, None) if quantized is None else (quantized.values, quantized.scale)),
            *(*x.stride()[:2], *gate.stride()[:2]),
            0 if quantized is None else quantized.scale.stride(1),
            heads=heads,
            width=width,
            lanes=lanes,
            at_once=at_once,
            **overlapping(x.device),
        )
    return rows, quantized


@triton.jit  # type: ignore[untyped-decorator]
def _gate(
    x: tl.tensor,
    gate: tl.tensor,
    rows: tl.tensor,
    quantized: tl.tensor,
    scale: tl.tensor,
    x_row: tl.tensor,
    x_head: tl.tensor,
    gate_row: tl.tensor,
    gate_head: tl.tensor,
    scale_block: tl.tensor,
    heads: tl.constexpr,
    width: tl.constexpr,
    lanes: tl.constexpr,
    at_once: tl.constexpr,
    early: tl.constexpr,
) -> None:
    wait_for_inputs(early)
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * at_once + tl.arange(0, at_once)
    channel = tl.arange(0, lanes)
    inside = (head < heads)[:, None] & (channel < width)[None, :]
    at_x = x + row * x_row + head.to(tl.int64)[:, None] * x_head + channel[None, :]
    at_gate = gate + row * gate_row + head[:, None] * gate_head + channel[None, :]
    wide = tl.load(at_x, mask=inside, other=0.0).to(tl.float32)
    opening = tl.load(at_gate, mask=inside, other=0.0).to(tl.float32)
    y = (wide * tl.sigmoid(opening)).to(rows.dtype.element_ty)
    place = row * heads * width + head[:, None] * width + channel[None, :]
    tl.store(rows + place, y, mask=inside)
    if quantized is not None:
        blocks: tl.constexpr = lanes // 128
        rounded = tl.reshape(y.to(tl.float32), [at_once, blocks, 128])
        found = tl.max(tl.abs(rounded), 2) / 448.0
        found = tl.where(found < 1.1754943508222875e-38, 1.0, found)
        values = tl.reshape((rounded / found[:, :, None]).to(tl.float8e4nv), [at_once, lanes])
        tl.store(quantized + place, values, mask=inside)
        block = tl.arange(0, blocks)
        at_scale = (head * (width // 128)).to(tl.int64)[:, None] + block[None, :]
        is_block = (head < heads)[:, None] & (block < width // 128)[None, :]
        tl.store(scale + at_scale * scale_block + row, found, mask=is_block)
