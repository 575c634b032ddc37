"""The second product of the experts on GPUs: rows are quantised, multiplied and put back in order.

A program keeps its rows and goes through columns of the weight, so that rows are read and quantised
once where there are many. What is launched follows from the shapes alone.
"""

from __future__ import annotations

import torch

from upcurve.engine import tuning
from upcurve.engine.kernels.groups import places_of, tile_of
from upcurve.engine.kernels.quantized import QuantizedRows
from upcurve.engine.kernels.tiles import FEW_ROWS, ExpertTile
from upcurve.engine.platform import overlapping, tl, triton, wait_for_inputs


def down(
    rows: torch.Tensor | QuantizedRows,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    order: torch.Tensor,
    ends: torch.Tensor,
    *,
    dtype: torch.dtype,
    tile: ExpertTile | None = None,
) -> torch.Tensor:
    """Multiply rows that are sorted by expert, each by its expert's weight; put them in order.

    Args:
        rows: [R, I], contiguous. Where the weight is FP8 they are quantised in the kernel, with one
            scale for 128 channels, if they are not yet; that pays for a few rows.
        weight: [E, H, I], contiguous; float8_e4m3fn where `scale` is given.
        scale: float32 [E, ceil(H / 128), ceil(I / 128)], contiguous.
        order: int32 [R]: the row of the result for each row.
        ends: int32 [E]: the row after the last of each expert.
        dtype: of the result.
        tile: chosen from the shapes where None.

    Returns:
        [R, H].
    """
    experts, columns, depth = weight.shape
    values = rows.values if isinstance(rows, QuantizedRows) else rows
    row_scale = rows.scale if isinstance(rows, QuantizedRows) else None
    count = len(values)
    assert values.is_contiguous()
    assert row_scale is None or scale is not None
    assert weight.is_contiguous()
    assert scale is None or scale.is_contiguous()
    assert columns * depth < 2**31
    out = values.new_empty(count, columns, dtype=dtype)
    if count == 0:
        return out
    tile = tile or tuning.choose(
        ExpertTile.of_down(
            rows=count,
            experts=experts,
            columns=columns,
            depth=depth,
            element_size=weight.element_size(),
        ),
        "expert_down",
        out.device,
        rows=count,
        experts=experts,
        columns=columns,
        depth=depth,
        dtype=weight.dtype,
    )
    places, by_row = places_of(count, experts, tile.rows)
    across = triton.cdiv(columns, tile.columns)
    # Many rows stay in a program for all columns; few are read again by more programs.
    programs = 1 if count > FEW_ROWS * experts else across
    _down[(programs, places)](
        *(values, row_scale, weight, scale, ends, order, out),
        0 if row_scale is None else row_scale.stride(1),
        columns=columns,
        depth=depth,
        groups=experts,
        lanes=triton.next_power_of_2(experts),
        by_row=by_row,
        tile_rows=tile.rows,
        tile_columns=tile.columns,
        turned=tile.rows < 64,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **overlapping(values.device),
    )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _down(
    rows: tl.tensor,
    row_scale: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    ends: tl.tensor,
    order: tl.tensor,
    out: tl.tensor,
    scale_block: tl.tensor,
    columns: tl.constexpr,
    depth: tl.constexpr,
    groups: tl.constexpr,
    lanes: tl.constexpr,
    by_row: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
    turned: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Compute some tiles of the result, of rows that are read once."""
    wait_for_inputs(early)
    group, first, last = tile_of(ends, tl.program_id(1), groups, lanes, by_row, tile_rows)
    if first >= last:
        return
    blocks: tl.constexpr = (depth + 127) // 128
    row = first + tl.arange(0, tile_rows)
    inside = row < last
    step = tl.arange(0, 128)
    weight += group.to(tl.int64) * (columns * depth)
    at_rows = rows + row.to(tl.int64)[:, None] * depth + step[None, :]
    values = ()
    scales = ()
    for block in tl.static_range(blocks):
        held = inside[:, None] & (block * 128 + step < depth)[None, :]
        value = tl.load(at_rows + block * 128, mask=held, other=0.0)
        if row_scale is not None:
            found = tl.load(row_scale + block * scale_block + row, mask=inside, other=0.0)
            scales = scales + (found,)  # type: ignore[assignment]  # noqa: RUF005
        elif scale is not None:
            wide = value.to(tl.float32)
            found = tl.max(tl.abs(wide), 1) / 448.0
            found = tl.where(found < 1.1754943508222875e-38, 1.0, found)
            scales = scales + (found,)  # type: ignore[assignment]  # noqa: RUF005
            value = (wide / found[:, None]).to(tl.float8e4nv)
        value = tl.trans(value) if turned else value
        values = values + (value,)  # type: ignore[assignment]  # noqa: RUF005
    target = tl.load(order + row, mask=inside, other=0).to(tl.int64)
    for start in range(tl.program_id(0) * tile_columns, columns, tl.num_programs(0) * tile_columns):
        column = start + tl.arange(0, tile_columns)
        read = column if columns % tile_columns == 0 else tl.minimum(column, columns - 1)
        at_weight = weight + read[:, None] * depth + step[None, :]
        block_row = group * ((columns + 127) // 128) + start // 128
        total = tl.zeros(
            [tile_columns, tile_rows] if turned else [tile_rows, tile_columns], tl.float32
        )
        for block in tl.static_range(blocks):
            if depth % 128 == 0:
                right = tl.load(at_weight + block * 128)
            else:
                rest = (block * 128 + step < depth)[None, :]
                right = tl.load(at_weight + block * 128, mask=rest, other=0.0)
            if scale is None:
                if turned:
                    total = tl.dot(right, values[block], total, input_precision="ieee")
                else:
                    total = tl.dot(values[block], tl.trans(right), total, input_precision="ieee")
            else:
                of_block = tl.load(scale + block_row * blocks + block)
                both = scales[block] * of_block
                if turned:
                    total += tl.dot(right, values[block]) * both[None, :]
                else:
                    total += tl.dot(values[block], tl.trans(right)) * both[:, None]
        result = tl.trans(total) if turned else total
        at_out = out + target[:, None] * columns + column[None, :]
        written = inside[:, None] & (column < columns)[None, :]
        tl.store(at_out, result.to(out.dtype.element_ty), mask=written)
