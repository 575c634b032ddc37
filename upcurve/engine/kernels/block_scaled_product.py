"""Products of rows and weights [N, K] on GPUs: of FP8 with block scales, of groups of rows.

One kernel multiplies; what it launches follows from the shapes alone, so that a graph that was
captured once serves every routing. Where a group has few rows the weight is the left side of the
product, of which tensor cores want at least 64 rows (wgmma of sm_90), and the rows are the right.
"""

from __future__ import annotations

import torch

from upcurve.engine.kernels.tiles import Tile
from upcurve.engine.platform import tl, triton


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
    return _launch(rows, row_scale, weight.unsqueeze(0), scale, None, dtype, tile)


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
        shares: S, at most ceil(K / 128).
        tile: chosen from the shapes where None.

    Returns:
        float32 [T, S, N], the last dimension contiguous.
    """
    weight = weight.unsqueeze(0)
    return _launch(rows, row_scale, weight, scale, None, torch.float32, tile, shares).transpose(
        0, 1
    )


def grouped(
    rows: torch.Tensor,
    row_scale: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    ends: torch.Tensor,
    dtype: torch.dtype,
    *,
    tile: Tile | None = None,
) -> torch.Tensor:
    """Multiply quantised rows that are sorted by group, each by the weight of its group.

    Args:
        rows: float8_e4m3fn [R, K], K contiguous.
        row_scale: float32 [R, ceil(K / 128)].
        weight: float8_e4m3fn [G, N, K], contiguous.
        scale: float32 [G, ceil(N / 128), ceil(K / 128)], contiguous.
        ends: int32 [G]: the row after the last of each group. Rows behind the last are not written.
        dtype: of the result.
        tile: chosen from the shapes where None.

    Returns:
        [R, N].
    """
    return _launch(rows, row_scale, weight, scale, ends, dtype, tile)


def grouped_plain(
    rows: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor, *, tile: Tile | None = None
) -> torch.Tensor:
    """Multiply rows that are sorted by group, each by the weight of its group; sums are float32.

    Args:
        rows: [R, K], K contiguous.
        weight: [G, N, K] in the dtype of rows, contiguous.
        ends: int32 [G]: the row after the last of each group. Rows behind the last are not written.
        tile: chosen from the shapes where None.

    Returns:
        [R, N] in the dtype of rows.
    """
    return _launch(rows, None, weight, None, ends, rows.dtype, tile)


def _launch(
    rows: torch.Tensor,
    row_scale: torch.Tensor | None,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    ends: torch.Tensor | None,
    dtype: torch.dtype,
    tile: Tile | None,
    shares: int | None = None,
) -> torch.Tensor:
    count, depth = rows.shape
    groups, columns, _ = weight.shape
    assert rows.stride(1) == 1
    assert weight.is_contiguous()
    assert weight.shape[2] == depth
    assert scale is None or scale.is_contiguous()
    assert columns * depth < 2**31
    size = (count, columns) if shares is None else (shares, count, columns)
    out = rows.new_empty(size, dtype=dtype)
    if count == 0:
        return out
    tile = tile or Tile.of(
        rows=count,
        groups=groups,
        columns=columns * (shares or 1),
        depth=depth,
        element_size=weight.element_size(),
    )
    places, by_row = places_of(count, groups, tile.rows, grouped=ends is not None)
    _multiply[(triton.cdiv(columns, tile.columns), places, shares or 1)](
        rows,
        row_scale,
        weight,
        scale,
        ends,
        out,
        count,
        rows.stride(0),
        *((0, 0) if row_scale is None else row_scale.stride()),
        columns=columns,
        depth=depth,
        share=tile.depth * triton.cdiv(triton.cdiv(depth, tile.depth), shares or 1),
        groups=groups,
        lanes=triton.next_power_of_2(groups),
        by_row=by_row,
        tile_rows=tile.rows,
        tile_columns=tile.columns,
        tile_depth=tile.depth,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out


def places_of(count: int, groups: int, tile_rows: int, *, grouped: bool) -> tuple[int, bool]:
    """Return how many places there are for tiles of rows, and whether every row is one.

    At most ceil(count / tile_rows) + min(count, groups), whatever rows the groups have.
    """
    if not grouped:
        return -(-count // tile_rows), False
    if count <= groups:
        return count, True
    return count // tile_rows + groups, False


@triton.jit  # type: ignore[untyped-decorator]
def tile_of(
    ends: tl.tensor,
    place: tl.tensor,
    groups: tl.constexpr,
    lanes: tl.constexpr,
    by_row: tl.constexpr,
    tile_rows: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return the group of a place, its tile's first row, and the row after the group's last.

    Where a place has no tile the first row is not before the other one. Every row is a place, of
    which every `tile_rows`-th of a group has a tile; or group g with rows from b up to e has the
    places from b // tile_rows + g up to e // tile_rows + g + 1, at most one more than it needs:
    so no sum over the groups is needed to find them.
    """
    index = tl.arange(0, lanes)
    end = tl.load(ends + index, mask=index < groups, other=2**31 - 1)
    passed = end <= place if by_row else end // tile_rows + index + 1 <= place
    group = tl.sum(passed.to(tl.int32), 0)
    begin = tl.load(ends + group - 1, mask=group > 0, other=0)
    last = tl.load(ends + group, mask=group < groups, other=0)
    if by_row:
        first = tl.where((place - begin) % tile_rows == 0, place, last)
    else:
        first = begin + (place - begin // tile_rows - group) * tile_rows
    return group, first, last


@triton.jit  # type: ignore[untyped-decorator]
def _multiply(
    rows: tl.tensor,
    row_scale: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    ends: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    row_stride: tl.tensor,
    scale_row: tl.tensor,
    scale_block: tl.tensor,
    columns: tl.constexpr,
    depth: tl.constexpr,
    share: tl.constexpr,
    groups: tl.constexpr,
    lanes: tl.constexpr,
    by_row: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
    tile_depth: tl.constexpr,
) -> None:
    """Compute one tile of the result, or of one share of it."""
    place = tl.program_id(1)
    if ends is None:
        group, first, last = 0, place * tile_rows, count
    else:
        group, first, last = tile_of(ends, place, groups, lanes, by_row, tile_rows)
        if first >= last:
            return
        weight += group.to(tl.int64) * columns * depth
    row = tl.arange(0, tile_rows)
    inside = first + row < last
    start = tl.program_id(0) * tile_columns
    column = start + tl.arange(0, tile_columns)
    # What is read in place of columns that are not there is not written.
    read = column if columns % tile_columns == 0 else tl.minimum(column, columns - 1)
    step = tl.arange(0, tile_depth)
    first = first.to(tl.int64)
    at_rows = rows + first * row_stride + row[:, None] * row_stride + step[None, :]
    at_weight = weight + read[:, None] * depth + step[None, :]
    if row_scale is not None:
        across: tl.constexpr = (depth + 127) // 128
        down: tl.constexpr = (columns + 127) // 128
        at_row_scale = row_scale + (first + row) * scale_row
        scale += (group * down + start // 128) * across

    turned: tl.constexpr = tile_rows < 64
    total = tl.zeros([tile_columns, tile_rows] if turned else [tile_rows, tile_columns], tl.float32)
    whole: tl.constexpr = share >= depth
    begin = 0 if whole else tl.program_id(2) * share
    end = depth if whole else tl.minimum(begin + share, depth)
    for done in range(begin, end, tile_depth):
        if depth % tile_depth == 0:
            left = tl.load(at_rows + done, mask=inside[:, None], other=0.0)
            right = tl.load(at_weight + done)
        else:
            rest = done + step < depth
            left = tl.load(at_rows + done, mask=inside[:, None] & rest[None, :], other=0.0)
            right = tl.load(at_weight + done, mask=rest[None, :], other=0.0)
        if turned:
            left, right = right, left
        if row_scale is None:
            total = tl.dot(left, tl.trans(right), total, input_precision="ieee")
        else:
            block = done // 128
            of_rows = tl.load(at_row_scale + block * scale_block, mask=inside, other=0.0)
            both = of_rows * tl.load(scale + block)
            both = both[None, :] if turned else both[:, None]
            total += tl.dot(left, tl.trans(right)) * both

    out += tl.program_id(2).to(tl.int64) * count * columns
    at_out = out + (first + row)[:, None] * columns + column[None, :]
    written = inside[:, None] & (column < columns)[None, :]
    result = tl.trans(total) if turned else total
    tl.store(at_out, result.to(out.dtype.element_ty), mask=written)
