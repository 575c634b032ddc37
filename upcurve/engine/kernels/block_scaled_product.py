"""Products of FP8 rows and dense FP8 weights [N, K] with block scales, on GPUs.

What is launched follows from the shapes alone. Where there are few rows the weight is the left side
of the product, of which tensor cores want at least 64 rows (wgmma of sm_90), and the rows are the
right.
"""

from __future__ import annotations

import torch

from upcurve.engine import tuning
from upcurve.engine.kernels.tiles import Tile
from upcurve.engine.platform import overlapping, tl, triton, wait_for_inputs


def linear(
    rows: torch.Tensor,
    row_scale: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    dtype: torch.dtype,
    *,
    tile: Tile | None = None,
) -> torch.Tensor:
    """Multiply quantised rows by the transpose of a block-scaled weight, summed in float32.

    Args:
        rows: float8_e4m3fn [T, K], K contiguous.
        row_scale: float32 [T, ceil(K / 128)].
        weight: float8_e4m3fn [N, K], contiguous.
        scale: float32 [ceil(N / 128), ceil(K / 128)], contiguous.
        dtype: of the result.
        tile: chosen from the shapes where None.

    Returns:
        [T, N].
    """
    return _launch(rows, row_scale, weight, scale, dtype, 1, tile)[0]


def linear_shares(
    rows: torch.Tensor,
    row_scale: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    *,
    shares: int,
    tile: Tile | None = None,
) -> torch.Tensor:
    """Compute `linear` as shares of the channels: their sum, in any fixed order, is the product.

    Few columns make few programs: shares of the channels make more of them, without atomics.

    Args:
        rows: float8_e4m3fn [T, K], K contiguous.
        row_scale: float32 [T, ceil(K / 128)].
        weight: float8_e4m3fn [N, K], contiguous.
        scale: float32 [ceil(N / 128), ceil(K / 128)], contiguous.
        shares: S, at least 1; those behind the last channel are zeros.
        tile: chosen from the shapes where None.

    Returns:
        float32 [T, S, N], the last dimension contiguous.
    """
    return _launch(rows, row_scale, weight, scale, torch.float32, shares, tile).transpose(0, 1)


def _launch(
    rows: torch.Tensor,
    row_scale: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    dtype: torch.dtype,
    shares: int,
    tile: Tile | None,
) -> torch.Tensor:
    """Return [shares, T, N]."""
    count, depth = rows.shape
    columns = len(weight)
    assert rows.stride(1) == 1
    assert weight.is_contiguous()
    assert weight.shape[1] == depth
    assert scale.is_contiguous()
    assert columns * depth < 2**31
    out = rows.new_empty(shares, count, columns, dtype=dtype)
    if count == 0:
        return out
    tile = tile or tuning.choose(
        Tile.of(rows=count, columns=columns, shares=shares),
        "dense_product",
        rows.device,
        rows=count,
        columns=columns,
        depth=depth,
        shares=shares,
    )
    _multiply[(triton.cdiv(columns, tile.columns), triton.cdiv(count, tile.rows), shares)](
        *(rows, row_scale, weight, scale, out, count, rows.stride(0), *row_scale.stride()),
        columns=columns,
        depth=depth,
        shares=shares,
        tile_rows=tile.rows,
        tile_columns=tile.columns,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **overlapping(rows.device),
    )
    return out


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _multiply(
    rows: tl.tensor,
    row_scale: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    row_stride: tl.tensor,
    scale_row: tl.tensor,
    scale_block: tl.tensor,
    columns: tl.constexpr,
    depth: tl.constexpr,
    shares: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Compute one tile of one share of the result."""
    wait_for_inputs(early)
    row = tl.program_id(1) * tile_rows + tl.arange(0, tile_rows)
    inside = row < count
    start = tl.program_id(0) * tile_columns
    column = start + tl.arange(0, tile_columns)
    # What is read in place of columns that are not there is not written.
    read = column if columns % tile_columns == 0 else tl.minimum(column, columns - 1)
    step = tl.arange(0, 128)
    at_rows = rows + row.to(tl.int64)[:, None] * row_stride + step[None, :]
    at_weight = weight + read[:, None] * depth + step[None, :]
    at_scale = row_scale + row.to(tl.int64) * scale_row
    blocks: tl.constexpr = (depth + 127) // 128
    scale += (start // 128) * blocks

    turned: tl.constexpr = tile_rows < 64
    total = tl.zeros([tile_columns, tile_rows] if turned else [tile_rows, tile_columns], tl.float32)
    share: tl.constexpr = 128 * ((blocks + shares - 1) // shares)
    begin = 0 if shares == 1 else tl.program_id(2) * share
    end = depth if shares == 1 else tl.minimum(begin + share, depth)
    for done in range(begin, end, 128):
        if depth % 128 == 0:
            left = tl.load(at_rows + done, mask=inside[:, None], other=0.0)
            right = tl.load(at_weight + done)
        else:
            rest = done + step < depth
            left = tl.load(at_rows + done, mask=inside[:, None] & rest[None, :], other=0.0)
            right = tl.load(at_weight + done, mask=rest[None, :], other=0.0)
        of_rows = tl.load(at_scale + (done // 128) * scale_block, mask=inside, other=0.0)
        both = of_rows * tl.load(scale + done // 128)
        if turned:
            total += tl.dot(right, tl.trans(left)) * both[None, :]
        else:
            total += tl.dot(left, tl.trans(right)) * both[:, None]

    out += tl.program_id(2).to(tl.int64) * count * columns
    at_out = out + row.to(tl.int64)[:, None] * columns + column[None, :]
    written = inside[:, None] & (column < columns)[None, :]
    result = tl.trans(total) if turned else total
    tl.store(at_out, result.to(out.dtype.element_ty), mask=written)
