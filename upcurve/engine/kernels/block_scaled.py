"""Products with FP8 weights that have one scale per block of 128 x 128.

The format is that of FP8 checkpoints (DeepSeek-V3 technical report, arXiv 2412.19437, section
3.3.2): an element of a weight is its float8_e4m3fn value times the float32 scale of its block;
activations are quantised when they are multiplied, with one scale per row and 128 channels. A scale
is multiplied by, never divided by: those of experts that no token was ever sent to are 1e-23.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from upcurve.engine.kernels import block_scaled_product as product
from upcurve.engine.kernels import block_scaled_rows, matrix_vector
from upcurve.engine.kernels.quantized import QuantizedRows
from upcurve.engine.kernels.tiles import Tile
from upcurve.engine.platform import compute_capability, is_amd, runs_kernels

BLOCK = 128
"""Rows and columns that share a scale."""
FP8 = torch.float8_e4m3fn
HIGHEST = torch.finfo(FP8).max
LEAST_SCALE = torch.finfo(torch.float32).tiny
"""Below it float32 loses bits, or is flushed to 0: what needs a smaller scale is 0 with scale 1."""
LIBRARY_ROWS = 32
"""From so many on cuBLAS is faster than the own kernel (docs/measured.md)."""
ROWS_AT_ONCE = 1024
"""Rows of a weight, whole blocks, that are held in float32."""


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise each 128 channels of each row with the scale max |x| / 448.

    Args:
        x: [T, K], floating point.

    Returns:
        float8_e4m3fn [T, K], float32 [T, ceil(K / 128)]; the scale of zeros is 1.
    """
    return _quantize(x, rows=1)


def quantize_blocks(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise each block of 128 x 128 with the scale max |w| / 448; that of zeros is 1.

    Args:
        weight: [..., N, K], floating point; blocks at the edges may be smaller.

    Returns:
        float8_e4m3fn [..., N, K], float32 [..., ceil(N / 128), ceil(K / 128)].
    """
    quantized = torch.empty_like(weight, dtype=FP8, memory_format=torch.contiguous_format)
    *lead, height, width = weight.shape
    shape = (*lead, _blocks(height), _blocks(width))
    scale = torch.empty(shape, dtype=torch.float32, device=weight.device)
    for source, target, scales in _slabs(weight, quantized, scale):
        values, found = _quantize(source, rows=BLOCK)
        target.copy_(values)
        scales.copy_(found)
    return quantized, scale


def dequantize_blocks(
    weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Multiply each element by the scale of its block, in float32.

    Args:
        weight: float8_e4m3fn [..., N, K].
        scale: float32 [..., ceil(N / 128), ceil(K / 128)].
        dtype: of the result.

    Returns:
        [..., N, K].
    """
    out = torch.empty_like(weight, dtype=dtype, memory_format=torch.contiguous_format)
    for source, target, scales in _slabs(weight, out, scale):
        per_row = scales.repeat_interleave(BLOCK, 0)[: len(source)]
        target.copy_(_dequantize_rows(source, per_row))
    return out


def linear_reference(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Multiply quantised rows by the transpose of a block-scaled weight, in float32.

    Args:
        x: [T, K], floating point; quantised by `quantize_rows`.
        weight: float8_e4m3fn [N, K].
        scale: float32 [ceil(N / 128), ceil(K / 128)].

    Returns:
        [T, N] in the dtype of x.
    """
    rows = _dequantize_rows(*quantize_rows(x))
    return F.linear(rows, dequantize_blocks(weight, scale, torch.float32)).to(x.dtype)


def grouped_reference(
    rows: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, ends: torch.Tensor
) -> torch.Tensor:
    """Multiply rows that are sorted by group, each by the weight of its group.

    Args:
        rows: [R, K], floating point; quantised by `quantize_rows`.
        weight: float8_e4m3fn [G, N, K].
        scale: float32 [G, ceil(N / 128), ceil(K / 128)].
        ends: int32 [G]: the row after the last of each group; the last is R.

    Returns:
        [R, N] in the dtype of rows.
    """
    out = rows.new_empty(len(rows), weight.shape[1])
    begin = 0
    for group, end in enumerate(ends.tolist()):
        if end > begin:
            out[begin:end] = linear_reference(rows[begin:end], weight[group], scale[group])
        begin = end
    return out


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    quantized: QuantizedRows | None = None,
) -> torch.Tensor:
    """Compute `linear_reference`; on a GPU one row is not quantised, and many go to a library.

    Args:
        x: [T, K], floating point.
        weight: float8_e4m3fn [N, K], contiguous.
        scale: float32 [ceil(N / 128), ceil(K / 128)], contiguous.
        quantized: x in FP8, where that is known already.

    Returns:
        [T, N] in the dtype of x.
    """
    if not runs_kernels(x.device):
        return linear_reference(x, weight, scale)
    if len(x) == 1:
        return matrix_vector.multiply_row(x, weight, scale)
    rows = quantized or block_scaled_rows.quantize(x)
    if len(x) >= LIBRARY_ROWS and _in_library(x, weight):
        return _multiply_in_library(rows, weight, scale, x.dtype)
    return product.linear(rows.values, rows.scale, weight, scale, x.dtype)


def linear_shares(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    quantized: QuantizedRows | None = None,
) -> torch.Tensor:
    """Compute `linear`, or shares of it for who sums them anyway, where that is faster.

    Arguments as `linear`.

    Returns:
        [T, N] in the dtype of x, or float32 [T, S, N], to be summed over S in order.
    """
    shares = Tile.shares(rows=len(x), columns=len(weight), depth=x.shape[1])
    if len(x) == 1 or shares == 1 or not runs_kernels(x.device):
        return linear(x, weight, scale, quantized)
    rows = quantized or block_scaled_rows.quantize(x)
    return product.linear_shares(rows.values, rows.scale, weight, scale, shares=shares)


def _in_library(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether cuBLAS has this product: on Hopper, from CUDA 12.9 on, of whole blocks."""
    if is_amd() or x.dtype != torch.bfloat16 or any(size % BLOCK for size in weight.shape):
        return False
    if weight.shape[1] % (4 * BLOCK):  # it wants the scales of four blocks at once
        return False
    return compute_capability(x.device) == (9, 0)


def _multiply_in_library(
    rows: QuantizedRows, weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    whole = rows.whole()
    product = F.scaled_mm(
        whole.values,
        weight.t(),
        whole.scale,
        F.ScalingType.BlockWise1x128,
        scale.t(),
        F.ScalingType.BlockWise128x128,
        output_dtype=dtype,
    )
    return product[: len(rows.values)]


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _slabs(
    first: torch.Tensor, second: torch.Tensor, scale: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield views of so many rows of two tensors [..., N, K], and of their scales."""
    for index in itertools.product(*map(range, first.shape[:-2])):
        yield from zip(
            first[index].split(ROWS_AT_ONCE),
            second[index].split(ROWS_AT_ONCE),
            scale[index].split(ROWS_AT_ONCE // BLOCK),
            strict=True,
        )


def _quantize(values: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise [N, K] with one scale for so many rows and 128 columns."""
    height, width = values.shape
    down, across = -(-height // rows), _blocks(width)
    edges = (0, across * BLOCK - width, 0, down * rows - height)
    blocks = F.pad(values.float(), edges).view(down, rows, across, BLOCK)
    scale = blocks.abs().amax((1, 3)) / HIGHEST
    scale = torch.where(scale < LEAST_SCALE, 1.0, scale)
    # Nothing overflows: what the division rounds up beyond the highest value is nearest to it.
    scaled = blocks / scale[:, None, :, None]
    return scaled.view(down * rows, across * BLOCK)[:height, :width].to(FP8), scale


def _dequantize_rows(quantized: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return float32 [T, K] of float8_e4m3fn [T, K] and float32 [T, ceil(K / 128)]."""
    columns = scale.float().repeat_interleave(BLOCK, 1)[:, : quantized.shape[1]]
    return quantized.float().mul_(columns)
