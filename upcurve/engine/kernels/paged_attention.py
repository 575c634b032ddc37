"""Attention of one query a sequence over paged keys and values, as one kernel and its combination.

The tokens of a sequence are divided among programs ("splits"), each of which keeps a running
softmax over its share; a second kernel weighs the shares together (Flash-Decoding,
https://pytorch.org/blog/flash-decoding/). What is launched follows from the shapes alone, so a
graph that was captured once serves every length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from upcurve.engine import tuning
from upcurve.engine.platform import (
    multiprocessors,
    overlapping,
    tl,
    triton,
    wait_for_inputs,
)

MOST_SPLITS = 256
"""Of a sequence: all of them meet in one tile of the second kernel."""
LEAST_TOKENS = 64
"""Of a full sequence in one split: less is not worth its place in the combination."""
LONG = 8192
"""Tokens of a capacity from which on it is no reason to divide the work in another way."""
PROGRAMS_PER_MULTIPROCESSOR = 4
"""As many as an sm_90 multiprocessor holds at once with tiles of bfloat16."""
TILE_BYTES = 16384
"""Of the keys that a program handles at once."""
COMBINED = 8192
"""Most numbers in a tile of the second kernel."""
COMBINED_COLUMNS = 32
"""Fewest columns of it: one line of 128 bytes a row."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How the first kernel divides the work."""

    splits: int
    """Programs that share a sequence and KV head."""
    tile: int
    """Tokens that a program handles at once; a power of two, at least 16."""
    warps: int = 4
    stages: int = 3
    """Page numbers, keys and values, products: each a tile ahead of the next."""

    @classmethod
    def of(cls, q: torch.Tensor, keys: torch.Tensor, page_tables: torch.Tensor) -> Launch:
        """Choose for the arguments of `attend_step_paged`, of which only shapes are looked at."""
        _, page_size, kv_heads, head_dim = keys.shape
        row = _padded(head_dim) * max(keys.element_size(), q.element_size() // 2)
        return cls(
            splits=choose_splits(
                batch=q.shape[0],
                kv_heads=kv_heads,
                capacity=page_tables.shape[1] * page_size,
                processors=multiprocessors(q.device),
            ),
            tile=min(128, max(16, TILE_BYTES // row)),
        )


def choose_splits(*, batch: int, kv_heads: int, capacity: int, processors: int) -> int:
    """Return how many programs share a sequence and KV head.

    Args:
        batch: sequences.
        kv_heads: of each.
        capacity: most tokens of a sequence.
        processors: programs that the device runs side by side at least.
    """
    filling = PROGRAMS_PER_MULTIPROCESSOR * processors // (batch * kv_heads)
    return max(1, min(filling, capacity // LEAST_TOKENS, MOST_SPLITS))


def attend_step_paged(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    page_tables: torch.Tensor,
    slots: torch.Tensor,
    lengths: torch.Tensor,
    *,
    gate: torch.Tensor | None = None,
    launch: Launch | None = None,
) -> torch.Tensor:
    """Attend with one query of each of B sequences of different lengths.

    Scores are scaled by head_dim ** -0.5. Sums are float32; keys, values and softmax weights enter
    the products in q's dtype, but in float16 where q is bfloat16 (below 65504) and they are float8.
    Nothing waits for the device.

    Args:
        q: [B, heads, head_dim], head_dim contiguous.
        keys: [pages, page_size, kv_heads, head_dim], head_dim contiguous; float8_e4m3fn is read
            with scale 1.
        values: as keys, strides included.
        page_tables: int32 [slots_total, P], contiguous: pages of the sequence in each slot, of
            which none behind its length is looked at.
        slots: int64 [B]: row of page_tables of each query.
        lengths: int32 [B]: tokens of each sequence, at least 1, at most P * page_size.
        gate: like q; what is returned is multiplied by sigmoid(gate) in float32.
        launch: how to divide the work; chosen from the shapes where None.

    Returns:
        [B, heads, head_dim] in q's dtype.
    """
    batch, heads, head_dim = q.shape
    _, page_size, kv_heads, _ = keys.shape
    assert q.stride(2) == keys.stride(3) == page_tables.stride(1) == 1
    assert keys.stride() == values.stride()
    assert gate is None or gate.stride(2) == 1
    assert heads % kv_heads == 0
    launch = launch or tuning.choose(
        Launch.of(q, keys, page_tables),
        "paged_attention",
        q.device,
        rows=batch,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        capacity=min(page_tables.shape[1] * page_size, LONG),
        page_size=page_size,
        dtype=keys.dtype,
    )
    splits, group, width = launch.splits, heads // kv_heads, _padded(head_dim)
    parts = q.new_empty(batch, heads, splits, head_dim, dtype=torch.float32)
    sums = q.new_empty(batch, heads, splits, dtype=torch.float32)
    out = q.new_empty(batch, heads, head_dim)
    _attend_share[(kv_heads, splits, batch)](
        q,
        keys,
        values,
        page_tables,
        slots,
        lengths,
        parts,
        sums,
        head_dim**-0.5 * math.log2(math.e),
        q.stride(0),
        q.stride(1),
        *keys.stride()[:3],
        page_tables.stride(0),
        group=group,
        rows=_padded(group),
        head_dim=head_dim,
        width=width,
        page_size=page_size,
        tile=launch.tile,
        num_warps=launch.warps,
        num_stages=launch.stages,
        **overlapping(q.device),
    )
    shares = triton.next_power_of_2(splits)
    columns = min(width, max(COMBINED_COLUMNS, COMBINED // shares))
    _combine[(triton.cdiv(head_dim, columns), heads, batch)](
        parts,
        sums,
        lengths,
        gate,
        out,
        splits,
        *((0, 0) if gate is None else gate.stride()[:2]),
        head_dim=head_dim,
        shares=shares,
        columns=columns,
        tile=launch.tile,
        **overlapping(q.device),
    )
    return out


def _padded(size: int) -> int:
    """Return the side of a tile of a matrix product that holds `size`."""
    return max(16, 1 << (size - 1).bit_length())


@triton.jit  # type: ignore[untyped-decorator]
def _share(length: tl.tensor, splits: tl.tensor, tile: tl.constexpr) -> tl.tensor:
    """Tokens of each split but the last that has any: whole tiles."""
    return tl.cdiv(tl.cdiv(length, splits), tile) * tile


@triton.jit  # type: ignore[untyped-decorator]
def _attend_share(
    q: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    page_tables: tl.tensor,
    slots: tl.tensor,
    lengths: tl.tensor,
    parts: tl.tensor,
    sums: tl.tensor,
    scale: tl.tensor,
    q_row: tl.tensor,
    q_head: tl.tensor,
    kv_page: tl.tensor,
    kv_token: tl.tensor,
    kv_head: tl.tensor,
    table_row: tl.tensor,
    group: tl.constexpr,
    rows: tl.constexpr,
    head_dim: tl.constexpr,
    width: tl.constexpr,
    page_size: tl.constexpr,
    tile: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Attend with the queries of one KV head to one split: the mean of its values, its log2 sum."""
    wait_for_inputs(early)
    head, split, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_heads, splits = tl.num_programs(0), tl.num_programs(1)
    length = tl.load(lengths + row)
    share = _share(length, splits, tile)
    first = split * share
    if first >= length:
        return
    last = tl.minimum(first + share, length)
    table = page_tables + tl.load(slots + row) * table_row

    of_group = tl.arange(0, rows)
    column = tl.arange(0, width)
    of_head = column < head_dim
    inside_q = (of_group < group)[:, None] & of_head[None, :]
    heads = head * group + of_group
    at_q = row * q_row + heads[:, None] * q_head + column[None, :]
    query = tl.load(q + at_q, mask=inside_q, other=0.0)
    if keys.dtype.element_ty == tl.float8e4nv and query.dtype == tl.bfloat16:
        # Exact, and one instruction a pair on sm_90; to bfloat16 it is three, two of them slow.
        query = query.to(tl.float16)

    highest = tl.full([rows], float("-inf"), tl.float32)
    total = tl.zeros([rows], tl.float32)
    mean = tl.zeros([rows, width], tl.float32)
    for start in tl.range(first, last, tile):
        token = start + tl.arange(0, tile)
        inside = token < last
        # What lies behind the length is not read: 0 * NaN is NaN, whatever the mask of the scores.
        inside_kv = inside[:, None] & of_head[None, :]
        if page_size % tile == 0:  # one page: its number and the rows' places are found once
            page = tl.load(table + start // page_size)
        else:
            page = tl.load(table + token // page_size, mask=inside, other=0)
        at = page.to(tl.int64) * kv_page + (token % page_size) * kv_token + head * kv_head
        at_kv = at[:, None] + column[None, :]
        key = tl.load(keys + at_kv, mask=inside_kv, other=0.0).to(query.dtype)
        value = tl.load(values + at_kv, mask=inside_kv, other=0.0).to(query.dtype)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        kept = tl.exp2(highest - higher)
        weights = tl.exp2(scores - higher[:, None])
        total = total * kept + tl.sum(weights, 1)
        mean = mean * kept[:, None]
        mean = tl.dot(weights.to(query.dtype), value, mean, input_precision="ieee")
        highest = higher

    place = (row * kv_heads * group + heads) * splits + split
    tl.store(sums + place, highest + tl.log2(total), mask=of_group < group)
    at_part = place[:, None] * head_dim + column[None, :]
    tl.store(parts + at_part, mean / total[:, None], mask=inside_q)


@triton.jit(do_not_specialize=["splits"])  # type: ignore[untyped-decorator]
def _combine(
    parts: tl.tensor,
    sums: tl.tensor,
    lengths: tl.tensor,
    gate: tl.tensor,
    out: tl.tensor,
    splits: tl.tensor,
    gate_row: tl.tensor,
    gate_head: tl.tensor,
    head_dim: tl.constexpr,
    shares: tl.constexpr,
    columns: tl.constexpr,
    tile: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Weigh the splits of one query that have tokens by the sums of their softmax, and gate."""
    wait_for_inputs(early)
    head, row = tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row)
    split = tl.arange(0, shares)
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    # The others wrote nothing.
    filled = (split < splits) & (split * _share(length, splits, tile) < length)
    place = (row * tl.num_programs(1) + head) * splits
    inside = filled[:, None] & (column < head_dim)[None, :]
    at = (place + split)[:, None] * head_dim + column[None, :]
    # Everything is asked for before any of it is used.
    logs = tl.load(sums + place + split, mask=filled, other=float("-inf"))
    part = tl.load(parts + at, mask=inside, other=0.0)
    if gate is not None:
        at_gate = row.to(tl.int64) * gate_row + head * gate_head + column
        opening = tl.load(gate + at_gate, mask=column < head_dim, other=0.0)
    weights = tl.exp2(logs - tl.max(logs, 0))
    mixed = tl.sum(part * weights[:, None], 0) / tl.sum(weights, 0)
    if gate is not None:
        mixed = mixed * tl.sigmoid(opening.to(tl.float32))
    place_out = (row * tl.num_programs(1) + head) * head_dim + column
    tl.store(out + place_out, mixed.to(out.dtype.element_ty), mask=column < head_dim)
