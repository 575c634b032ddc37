"""Root-mean-square norms on GPUs, with what comes before and after them, in one launch."""

from __future__ import annotations

import torch

from upcurve.engine.kernels.peers import Peers, sum_over_ranks
from upcurve.engine.kernels.quantized import GatedRows, QuantizedRows
from upcurve.engine.platform import overlapping, tl, triton, wait_for_inputs

CHANNELS_AT_ONCE = 1024
"""Of a program of the gated norm: whole heads."""


def add_norm(
    residual: torch.Tensor,
    update: torch.Tensor | None,
    weight: torch.Tensor,
    eps: float,
    mixing: torch.Tensor | None,
    *,
    quantize: bool,
    peers: Peers | None = None,
) -> tuple[torch.Tensor, torch.Tensor, QuantizedRows | None]:
    """Compute `rms_norm.add_norm`; the residual stream is changed in place."""
    tokens, width = residual.shape
    assert residual.is_contiguous()
    assert peers is None or (update is not None and tokens <= peers.rows)
    assert peers is None or peers.sums(width, residual.dtype)
    if update is None:
        strides, parts = (0, 0), 0
    else:
        update = update.unsqueeze(1) if update.dim() == 2 else update
        assert update.stride(2) == 1
        assert mixing is None or mixing.is_contiguous()
        strides, parts = (update.stride(0), update.stride(1)), update.shape[1]
    rows = torch.empty_like(residual)
    quantized = QuantizedRows.empty(tokens, width, residual.device) if quantize else None
    lanes = triton.next_power_of_2(width)
    if tokens:
        _add_norm[(tokens,)](
            *(residual, update, mixing, weight, rows),
            *((None, None) if quantized is None else (quantized.values, quantized.scale)),
            *((None, None, 0) if peers is None else (peers.addresses, peers.turns, peers.index)),
            *(*strides, 0 if quantized is None else quantized.scale.stride(1), eps),
            width=width,
            lanes=lanes,
            parts=parts,
            ranks=0 if peers is None else peers.ranks,
            box_rows=0 if peers is None else peers.rows,
            num_warps=max(1, min(8, lanes // 256)),
            **overlapping(residual.device),
        )
    return residual, rows, quantized


def gated_norm(
    x: torch.Tensor,
    gate: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    quantize: bool,
    into: GatedRows | None = None,
) -> tuple[torch.Tensor, QuantizedRows | None]:
    """Compute `rms_norm.gated_norm`; in FP8 only where a head is 128 channels: it has one scale."""
    tokens, heads, width = x.shape
    assert x.is_contiguous()
    assert gate.stride()[1:] == (width, 1)
    into = into or GatedRows.empty(
        *(tokens, heads * width, gate.dtype, x.device), quantize=quantize and width == 128
    )
    rows, quantized = into.rows, into.quantized
    assert rows.is_contiguous()
    lanes = triton.next_power_of_2(width)
    at_once = min(triton.next_power_of_2(heads), max(1, CHANNELS_AT_ONCE // lanes))
    if tokens:
        _gated_norm[(tokens, triton.cdiv(heads, at_once))](
            *(x, gate, weight, rows),
            *((None, None) if quantized is None else (quantized.values, quantized.scale)),
            *(gate.stride(0), 0 if quantized is None else quantized.scale.stride(1), eps),
            heads=heads,
            width=width,
            lanes=lanes,
            at_once=at_once,
            **overlapping(x.device),
        )
    return rows, quantized


# All ranks launch the same code.
@triton.jit(do_not_specialize=["index"])  # type: ignore[untyped-decorator]
def _add_norm(
    residual: tl.tensor,
    update: tl.tensor,
    mixing: tl.tensor,
    weight: tl.tensor,
    rows: tl.tensor,
    quantized: tl.tensor,
    scale: tl.tensor,
    addresses: tl.tensor,
    turns: tl.tensor,
    index: tl.tensor,
    update_row: tl.tensor,
    update_part: tl.tensor,
    scale_block: tl.tensor,
    eps: tl.tensor,
    width: tl.constexpr,
    lanes: tl.constexpr,
    parts: tl.constexpr,
    ranks: tl.constexpr,
    box_rows: tl.constexpr,
    early: tl.constexpr,
) -> None:
    wait_for_inputs(early)
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, lanes)
    inside = channel < width
    at = row * width + channel
    before = tl.load(residual + at, mask=inside, other=0.0)
    factor = 1.0 + tl.load(weight + channel, mask=inside, other=0.0)
    x = before.to(tl.float32)
    if parts > 0:
        total = tl.zeros([lanes], tl.float32)
        for part in tl.static_range(parts):
            from_part = update + row * update_row + part * update_part + channel
            counts = inside
            if mixing is not None:
                weight_of_part = tl.load(mixing + row * parts + part)
                if ranks > 0:
                    # Nobody computed here what is another rank's.
                    counts &= weight_of_part.to(tl.int32, bitcast=True) != 0
            added = tl.load(from_part, mask=counts, other=0.0).to(tl.float32)
            if mixing is not None:
                added *= weight_of_part
            total += added
        if ranks > 0:
            mine = total.to(before.dtype)
            total = sum_over_ranks(
                *(mine, row, channel, inside, addresses, turns, index, box_rows, width, ranks)
            )
        after = (x + total).to(before.dtype)
        tl.store(residual + at, after, mask=inside)
        # The norm is that of what the stream holds.
        x = after.to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, 0) / width + eps) * factor
    y = y.to(before.dtype)
    tl.store(rows + at, y, mask=inside)
    if quantized is not None:
        blocks: tl.constexpr = lanes // 128
        wide = tl.reshape(y.to(tl.float32), [blocks, 128])
        found = tl.max(tl.abs(wide), 1) / 448.0
        found = tl.where(found < 1.1754943508222875e-38, 1.0, found)
        values = tl.reshape((wide / found[:, None]).to(tl.float8e4nv), [lanes])
        tl.store(quantized + at, values, mask=inside)
        block = tl.arange(0, blocks)
        is_block = block * 128 < width
        tl.store(scale + block.to(tl.int64) * scale_block + row, found, mask=is_block)


@triton.jit(do_not_specialize_on_alignment=["scale"])  # type: ignore[untyped-decorator]
def _gated_norm(
    x: tl.tensor,
    gate: tl.tensor,
    weight: tl.tensor,
    rows: tl.tensor,
    quantized: tl.tensor,
    scale: tl.tensor,
    gate_row: tl.tensor,
    scale_block: tl.tensor,
    eps: tl.tensor,
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
    place = head[:, None] * width + channel[None, :]
    wide = tl.load(x + row * heads * width + place, mask=inside, other=0.0).to(tl.float32)
    opening = tl.load(gate + row * gate_row + place, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(weight + channel, mask=channel < width, other=0.0)
    norm = tl.rsqrt(tl.sum(wide * wide, 1) / width + eps)
    y = wide * norm[:, None] * factor[None, :] * opening * tl.sigmoid(opening)
    y = y.to(rows.dtype.element_ty)
    tl.store(rows + row * heads * width + place, y, mask=inside)
    if quantized is not None:
        # A head is 128 channels here.
        rounded = y.to(tl.float32)
        found = tl.max(tl.abs(rounded), 1) / 448.0
        found = tl.where(found < 1.1754943508222875e-38, 1.0, found)
        values = (rounded / found[:, None]).to(tl.float8e4nv)
        tl.store(quantized + row * heads * width + place, values, mask=inside)
        tl.store(scale + head.to(tl.int64) * scale_block + row, found, mask=head < heads)
