"""The first product of the experts on GPUs: tokens are gathered, multiplied and gated at once.

What is launched follows from the shapes alone, so that a graph that was captured once serves every
routing.
"""

from __future__ import annotations

import torch

from upcurve.engine import tuning
from upcurve.engine.kernels.groups import places_of, tile_of
from upcurve.engine.kernels.quantized import QuantizedRows
from upcurve.engine.kernels.tiles import ExpertTile
from upcurve.engine.platform import overlapping, tl, triton, wait_for_inputs


def gate_up(
    rows: torch.Tensor | QuantizedRows,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    order: torch.Tensor,
    ends: torch.Tensor,
    *,
    choices: int,
    dtype: torch.dtype,
    tile: ExpertTile | None = None,
) -> torch.Tensor:
    """Compute silu(gate x) * (up x) of tokens with their experts, summed in float32.

    Args:
        rows: of T tokens, [T, H]; quantised where the weight is.
        weight: [E, 2 I, H], gate rows first, contiguous; float8_e4m3fn where `scale` is given.
        scale: float32 [E, 2 I / 128, ceil(H / 128)], contiguous; I is a multiple of 128 then.
        order: int32 [T * K]: slots (token * K + choice) sorted by expert.
        ends: int32 [E]: the row of `order` after the last of each expert.
        choices: K, experts of a token.
        dtype: of the result.
        tile: chosen from the shapes where None.

    Returns:
        [T * K, I], sorted by expert.
    """
    values = rows.values if isinstance(rows, QuantizedRows) else rows
    row_scale = rows.scale if isinstance(rows, QuantizedRows) else None
    experts, both, depth = weight.shape
    half, count = both // 2, len(order)
    assert values.stride(1) == 1
    assert weight.is_contiguous()
    assert (row_scale is None) == (scale is None)
    assert scale is None or (scale.is_contiguous() and half % 128 == 0)
    assert 2 * half * depth < 2**31
    out = values.new_empty(count, half, dtype=dtype)
    if count == 0:
        return out
    tile = tile or tuning.choose(
        ExpertTile.of_gate_up(rows=count, experts=experts, columns=half),
        "expert_gate_up",
        values.device,
        rows=count,
        experts=experts,
        columns=half,
        depth=depth,
        dtype=weight.dtype,
    )
    places, by_row = places_of(count, experts, tile.rows)
    _gate_up[(triton.cdiv(half, tile.columns), places)](
        *(values, row_scale, weight, scale, ends, order, out),
        *(values.stride(0), *((0, 0) if row_scale is None else row_scale.stride())),
        choices=choices,
        half=half,
        depth=depth,
        groups=experts,
        lanes=triton.next_power_of_2(experts),
        by_row=by_row,
        tile_rows=tile.rows,
        tile_columns=tile.columns,
        tile_depth=128 // weight.element_size(),
        num_warps=tile.warps,
        num_stages=tile.stages,
        **overlapping(values.device),
    )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _gate_up(
    rows: tl.tensor,
    row_scale: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    ends: tl.tensor,
    order: tl.tensor,
    out: tl.tensor,
    row_stride: tl.tensor,
    scale_row: tl.tensor,
    scale_block: tl.tensor,
    choices: tl.constexpr,
    half: tl.constexpr,
    depth: tl.constexpr,
    groups: tl.constexpr,
    lanes: tl.constexpr,
    by_row: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
    tile_depth: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Compute one tile of the gated result."""
    wait_for_inputs(early)
    group, first, last = tile_of(ends, tl.program_id(1), groups, lanes, by_row, tile_rows)
    if first >= last:
        return
    row = first + tl.arange(0, tile_rows)
    inside = row < last
    source = tl.load(order + row, mask=inside, other=0) // choices
    weight += group.to(tl.int64) * (2 * half * depth)
    start = tl.program_id(0) * tile_columns
    column = start + tl.arange(0, tile_columns)
    read = column if half % tile_columns == 0 else tl.minimum(column, half - 1)
    step = tl.arange(0, tile_depth)
    at_rows = rows + source.to(tl.int64)[:, None] * row_stride + step[None, :]
    at_gate = weight + read[:, None] * depth + step[None, :]
    at_up = at_gate + half * depth
    turned: tl.constexpr = tile_rows < 64
    gate = tl.zeros([tile_columns, tile_rows] if turned else [tile_rows, tile_columns], tl.float32)
    up = gate
    if scale is not None:
        across: tl.constexpr = (depth + 127) // 128
        gate_scale = scale + (group * (2 * half // 128) + start // 128) * across
        up_scale = gate_scale + (half // 128) * across
        at_scale = row_scale + source.to(tl.int64) * scale_row
        of_rows = tl.load(at_scale, mask=inside, other=0.0)
        of_gate = tl.load(gate_scale)
        of_up = tl.load(up_scale)
    for done in range(0, depth, tile_depth):
        if scale is not None:
            # The next step's are on their way while this one multiplies.
            block = tl.minimum(done // 128 + 1, across - 1)
            next_rows = tl.load(at_scale + block * scale_block, mask=inside, other=0.0)
            next_gate = tl.load(gate_scale + block)
            next_up = tl.load(up_scale + block)
        if depth % tile_depth == 0:
            left = tl.load(at_rows + done, mask=inside[:, None], other=0.0)
            of_gates = tl.load(at_gate + done)
            of_ups = tl.load(at_up + done)
        else:
            rest = done + step < depth
            left = tl.load(at_rows + done, mask=inside[:, None] & rest[None, :], other=0.0)
            of_gates = tl.load(at_gate + done, mask=rest[None, :], other=0.0)
            of_ups = tl.load(at_up + done, mask=rest[None, :], other=0.0)
        if turned:
            left = tl.trans(left)
        else:
            of_gates, of_ups = tl.trans(of_gates), tl.trans(of_ups)
        if scale is None:
            if turned:
                gate = tl.dot(of_gates, left, gate, input_precision="ieee")
                up = tl.dot(of_ups, left, up, input_precision="ieee")
            else:
                gate = tl.dot(left, of_gates, gate, input_precision="ieee")
                up = tl.dot(left, of_ups, up, input_precision="ieee")
        else:
            if turned:
                gate += tl.dot(of_gates, left) * (of_rows * of_gate)[None, :]
                up += tl.dot(of_ups, left) * (of_rows * of_up)[None, :]
            else:
                gate += tl.dot(left, of_gates) * (of_rows * of_gate)[:, None]
                up += tl.dot(left, of_ups) * (of_rows * of_up)[:, None]
            of_rows, of_gate, of_up = next_rows, next_gate, next_up
    result = gate * tl.sigmoid(gate) * up
    result = tl.trans(result) if turned else result
    at_out = out + row.to(tl.int64)[:, None] * half + column[None, :]
    written = inside[:, None] & (column < half)[None, :]
    tl.store(at_out, result.to(out.dtype.element_ty), mask=written)
