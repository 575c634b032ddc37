"""Products of single rows and weights [N, K] on GPUs: for the few rows that a small batch has.

A program takes some whole rows of the weight at once: every byte that it needs is on its way before
the first is used, so that a launch costs little more than the bytes take. Tensor cores would wait
for rows that are not there. Activations are not quantised: nothing is gained from it here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from upcurve.engine.platform import overlapping, runs_kernels, tl, triton, wait_for_inputs

TILE_BYTES = 16 * 1024
"""Of the weight in one program."""
WARPS = 4
SMALL, FEW_ROWS = 2**21, 16
"""A weight of up to so many elements is read again for each of a few rows: from the cache."""


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return x [T, K] times the transpose of a weight [N, K]; of few rows not by a library."""
    few = 1 if weight.numel() > SMALL else FEW_ROWS
    if runs_kernels(x.device) and len(x) <= few and weight.is_contiguous():
        return multiply_row(x, weight, None)
    return F.linear(x, weight)


def multiply_row(
    rows: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor | None, *, tile: int | None = None
) -> torch.Tensor:
    """Multiply rows by the transpose of a weight, summed in float32.

    Args:
        rows: [T, K], K contiguous.
        weight: [N, K], contiguous; float8_e4m3fn where `scale` is given.
        scale: float32 [ceil(N / 128), ceil(K / 128)], contiguous, one for each block; or None.
        tile: columns of the result of a program, a power of two up to 128; chosen where None.

    Returns:
        [T, N] in the dtype of rows.
    """
    out = rows.new_empty(len(rows), len(weight))
    _launch(rows, weight.unsqueeze(0), scale, None, out, share=1, gated=False, tile=tile)
    return out


def gate_up_row(
    rows: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    ids: torch.Tensor,
    *,
    tile: int | None = None,
) -> torch.Tensor:
    """Compute silu(gate x) * (up x) of each token with each of its experts.

    Args:
        rows: [T, H], H contiguous.
        weight: [E, 2 I, H], gate rows first, contiguous; float8_e4m3fn where `scale` is given.
        scale: float32 [E, ceil(2 I / 128), ceil(H / 128)], contiguous; I is a multiple of 128 then.
        ids: int32 [T, K], contiguous; nothing is written for those of E or above.
        tile: columns of the result of a program, a power of two up to 128; chosen where None.

    Returns:
        [T * K, I] in the dtype of rows.
    """
    tokens, choices = ids.shape
    out = rows.new_empty(tokens * choices, weight.shape[1] // 2)
    _launch(rows, weight, scale, ids, out, share=choices, gated=True, tile=tile)
    return out


def down_row(
    rows: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    ids: torch.Tensor,
    *,
    tile: int | None = None,
) -> torch.Tensor:
    """Multiply each row by the transpose of its expert's weight.

    Args:
        rows: [T * K, I], I contiguous.
        weight: [E, H, I], contiguous; float8_e4m3fn where `scale` is given.
        scale: float32 [E, ceil(H / 128), ceil(I / 128)], contiguous.
        ids: int32 [T, K], contiguous; nothing is written for those of E or above.
        tile: columns of the result of a program, a power of two up to 128; chosen where None.

    Returns:
        [T * K, H] in the dtype of rows.
    """
    out = rows.new_empty(len(rows), weight.shape[1])
    _launch(rows, weight, scale, ids, out, share=1, gated=False, tile=tile)
    return out


def _launch(
    rows: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    ids: torch.Tensor | None,
    out: torch.Tensor,
    *,
    share: int,
    gated: bool,
    tile: int | None,
) -> None:
    assert rows.stride(1) == 1
    assert weight.is_contiguous()
    assert scale is None or scale.is_contiguous()
    assert ids is None or ids.is_contiguous()
    count, columns = out.shape
    depth = rows.shape[1]
    width = triton.next_power_of_2(depth)
    if tile is None:
        whole = width * weight.element_size() * (2 if gated else 1)
        tile = min(128, max(1, TILE_BYTES // whole))
    if count == 0:
        return
    _multiply_row[(triton.cdiv(columns, tile), count)](
        *(rows, weight, scale, ids, out, rows.stride(0)),
        experts=len(weight),
        columns=columns,
        depth=depth,
        width=width,
        share=share,
        tile=tile,
        gated=gated,
        num_warps=WARPS,
        **overlapping(rows.device),
    )


@triton.jit  # type: ignore[untyped-decorator]
def _load_rows(
    weight: tl.tensor,
    column: tl.tensor,
    depth: tl.constexpr,
    width: tl.constexpr,
) -> tl.tensor:
    """Load some rows of a weight, [tile, width]."""
    channel = tl.arange(0, width)
    at = weight + column[:, None] * depth + channel[None, :]
    if width == depth:
        loaded = tl.load(at)
    else:
        loaded = tl.load(at, mask=(channel < depth)[None, :], other=0.0)
    return loaded


@triton.jit  # type: ignore[untyped-decorator]
def _scaled(
    values: tl.tensor,
    scale: tl.tensor,
    first: tl.tensor,
    depth: tl.constexpr,
    width: tl.constexpr,
) -> tl.tensor:
    """Multiply values [width] by the scales of a row of blocks: cheaper than the weight by them."""
    if scale is not None:
        channel = tl.arange(0, width)
        at = scale + (first // 128) * ((depth + 127) // 128) + channel // 128
        values *= tl.load(at, mask=channel < depth, other=0.0)
    return values


@triton.jit  # type: ignore[untyped-decorator]
def _multiply_row(
    rows: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    ids: tl.tensor,
    out: tl.tensor,
    row_stride: tl.tensor,
    experts: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    width: tl.constexpr,
    share: tl.constexpr,
    tile: tl.constexpr,
    gated: tl.constexpr,
    early: tl.constexpr,
) -> None:
    slot = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * tile
    column = first + tl.arange(0, tile)
    # What is read in place of columns that are not there is not written.
    read = column if columns % tile == 0 else tl.minimum(column, columns - 1)
    total: tl.constexpr = columns * 2 if gated else columns
    if ids is not None:
        wait_for_inputs(early)
        expert = tl.load(ids + slot).to(tl.int64)
        if expert >= experts:
            return
        weight += expert * total * depth
        if scale is not None:
            scale += expert * ((total + 127) // 128) * ((depth + 127) // 128)
    loaded = _load_rows(weight, read, depth, width)
    if gated:
        loaded_up = _load_rows(weight, read + columns, depth, width)
    if ids is None:
        # A weight does not depend on any kernel before: it is on its way while they end.
        wait_for_inputs(early)
    channel = tl.arange(0, width)
    values = tl.load(rows + (slot // share) * row_stride + channel, mask=channel < depth, other=0.0)
    values = values.to(tl.float32)
    scaled = _scaled(values, scale, first, depth, width)
    result = tl.sum(loaded.to(tl.float32) * scaled[None, :], 1)
    if gated:
        scaled = _scaled(values, scale, first + columns, depth, width)
        up = tl.sum(loaded_up.to(tl.float32) * scaled[None, :], 1)
        result = result * tl.sigmoid(result) * up
    at = out + slot * columns + column
    tl.store(at, result.to(out.dtype.element_ty), mask=column < columns)
