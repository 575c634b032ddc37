"""Products of rows and weights [N, K] on GPUs: of FP8 with block scales, of groups of rows.

One kernel multiplies; what it launches follows from the shapes alone, so that a graph that was
captured once serves every routing. Where a group has few rows the weight is the left side of the
product, of which tensor cores want at least 64 rows (wgmma of sm_90), and the rows are the right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from upcurve.engine.platform import tl, triton

PROGRAMS = 128
"""Wanted at least, about one per multiprocessor: narrower tiles read the rows more often."""
STAGE_BYTES = 80 * 1024
"""Of tiles in flight in one program: two programs and more run on a multiprocessor."""


@dataclass(frozen=True, slots=True)
class Tile:
    """What one program computes: rows x columns of the result, some channels at a time."""

    rows: int
    columns: int
    """Divide 128: they share a scale."""
    depth: int
    """Channels of a step; 128 with scales."""
    warps: int
    stages: int
    """Steps that are in flight or in use at once."""

    @classmethod
    def of(cls, *, rows: int, groups: int, columns: int, depth: int, element_size: int) -> Tile:
        """Choose for [rows, depth] in so many groups times [groups, columns, depth].

        Groups differ: tiles hold half as many rows again as the mean of several.
        """
        usual = rows if groups == 1 else 1.5 * rows / groups
        height = 16
        while height < min(usual, 128):
            height *= 2
        tiles = -(-rows // height) if groups == 1 else min(rows, groups)
        width = 128
        while width > 16 and tiles * -(-columns // width) < PROGRAMS:
            width //= 2
        step = 128 // element_size
        stage = (height + width) * 128
        return cls(
            rows=height,
            columns=width,
            depth=step,
            warps=8 if height * width == 128 * 128 else 4,
            stages=min(max(3, STAGE_BYTES // stage), 6, max(2, -(-depth // step))),
        )


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
) -> torch.Tensor:
    count, depth = rows.shape
    groups, columns, _ = weight.shape
    assert rows.stride(1) == 1
    assert weight.is_contiguous()
    assert weight.shape[2] == depth
    assert scale is None or scale.is_contiguous()
    assert columns * depth < 2**31
    out = rows.new_empty(count, columns, dtype=dtype)
    if count == 0:
        return out
    tile = tile or Tile.of(
        rows=count,
        groups=groups,
        columns=columns,
        depth=depth,
        element_size=weight.element_size(),
    )
    places, by_row = places_of(count, groups, tile.rows, grouped=ends is not None)
    _multiply[(triton.cdiv(columns, tile.columns), places)](
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
    groups: tl.constexpr,
    lanes: tl.constexpr,
    by_row: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
    tile_depth: tl.constexpr,
) -> None:
    """Compute one tile of the result."""
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
    for done in range(0, depth, tile_depth):
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

    at_out = out + (first + row)[:, None] * columns + column[None, :]
    written = inside[:, None] & (column < columns)[None, :]
    result = tl.trans(total) if turned else total
    tl.store(at_out, result.to(out.dtype.element_ty), mask=written)
