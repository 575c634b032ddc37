"""Causal attention of several sequences' new queries over paged keys and values, as one kernel.

A program has a tile of queries, some tokens with all heads that share a KV head, and goes through
the keys with a running softmax (FlashAttention-2, https://arxiv.org/abs/2307.08691); only the keys
at the diagonal are compared with positions. What is launched follows from the shapes alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from upcurve.engine import tuning
from upcurve.engine.kernels.sequences import Sequences
from upcurve.engine.platform import is_amd, tl, triton

LANES = 32
"""Sequences that a program looks through at least: up to so many the kernel is the same."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What one program computes at a time."""

    rows: int
    """Queries of a tile, all heads of a token together; a power of two, at least 16."""
    tile: int
    """Keys at a time; a power of two, at least 16."""
    warps: int
    stages: int
    """Page numbers, keys and values, products: each a tile ahead of the next."""

    @classmethod
    def of(cls, q: torch.Tensor) -> Launch:
        """Choose for queries of heads of 256 channels: the most that registers hold."""
        if q.element_size() > 2:
            return cls(rows=32, tile=16, warps=4, stages=1)
        if is_amd():
            return cls(rows=64, tile=32, warps=4, stages=2)
        return cls(rows=128, tile=64, warps=8, stages=3)


def attend_chunks_paged(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    page_tables: torch.Tensor,
    sequences: Sequences,
    *,
    launch: Launch | None = None,
) -> torch.Tensor:
    """Attend with the new queries of N sequences, each over its context and itself, causally.

    Scores are scaled by head_dim ** -0.5. Sums are float32; keys, values and softmax weights enter
    the products in q's dtype, but in float16 where q is bfloat16 (below 65504) and they are float8.
    Nothing waits for the device.

    Args:
        q: [T, heads, head_dim], head_dim contiguous; sequence i has the rows from starts[i] up to
            starts[i + 1].
        keys: [pages, page_size, kv_heads, head_dim], head_dim contiguous, the new keys already
            stored; float8_e4m3fn is read with scale 1.
        values: likewise, of the same strides.
        page_tables: int32 [S, P], P contiguous: pages of each slot.
        sequences: of the rows of q.
        launch: how to divide the work; chosen from the shapes where None.

    Returns:
        [T, heads, head_dim] in q's dtype.
    """
    tokens, heads, head_dim = q.shape
    _, page_size, kv_heads, _ = keys.shape
    assert q.stride(2) == keys.stride(3) == page_tables.stride(1) == 1
    assert keys.stride() == values.stride()
    assert heads % kv_heads == 0
    count, group = len(sequences.slots), heads // kv_heads
    together = triton.next_power_of_2(group)
    launch = launch or tuning.choose(
        Launch.of(q),
        "paged_prefill",
        q.device,
        rows=tokens,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        page_size=page_size,
        dtype=keys.dtype,
    )
    out = torch.empty(tokens, heads, head_dim, dtype=q.dtype, device=q.device)
    if keys.dtype == torch.float8_e4m3fn and q.dtype == torch.bfloat16:
        # Keys and values become float16 exactly, by one instruction a pair on sm_90; to bfloat16 it
        # is three, two of them slow. What a program converts itself, it keeps in registers.
        q = q.to(torch.float16)
    at_once = max(1, launch.rows // together)
    if tokens:
        # No sequence has more than one tile that is not full.
        _attend_tile[(kv_heads, tokens // at_once + count)](
            *(q, keys, values, page_tables, out),
            *(sequences.slots, sequences.starts, sequences.contexts, count),
            head_dim**-0.5 * math.log2(math.e),
            *q.stride()[:2],
            *keys.stride()[:3],
            page_tables.stride(0),
            lanes=max(LANES, triton.next_power_of_2(count)),
            group=group,
            together=together,
            rows=at_once * together,
            head_dim=head_dim,
            width=_padded(head_dim),
            page_size=page_size,
            tile=launch.tile,
            num_warps=launch.warps,
            num_stages=launch.stages,
        )
    return out


def _padded(size: int) -> int:
    """Return the side of a tile of a matrix product that holds `size`."""
    return max(16, 1 << (size - 1).bit_length())


@triton.jit  # type: ignore[untyped-decorator]
def _attend_keys(
    query: tl.tensor,
    position: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    table: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    scale: tl.tensor,
    kv_page: tl.tensor,
    kv_token: tl.tensor,
    highest: tl.tensor,
    total: tl.tensor,
    mean: tl.tensor,
    head_dim: tl.constexpr,
    width: tl.constexpr,
    page_size: tl.constexpr,
    tile: tl.constexpr,
    diagonal: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Go on with a running softmax over some keys, at the diagonal those up to each position."""
    column = tl.arange(0, width)
    for start in tl.range(first, last, tile):
        token = start + tl.arange(0, tile)
        inside = (column < head_dim)[None, :]
        if page_size % tile == 0:  # one page: its number and the rows' places are found once
            page = tl.load(table + start // page_size)
        elif diagonal:
            page = tl.load(table + token // page_size, mask=token < last, other=0)
        else:
            page = tl.load(table + token // page_size)
        if diagonal:
            # What lies behind is not read: 0 * NaN is NaN, whatever the mask of the scores.
            inside = inside & (token < last)[:, None]
        at = page.to(tl.int64) * kv_page + (token % page_size) * kv_token
        at_kv = at[:, None] + column[None, :]
        key = tl.load(keys + at_kv, mask=inside, other=0.0).to(query.dtype)
        value = tl.load(values + at_kv, mask=inside, other=0.0).to(query.dtype)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee")
        if diagonal:
            scores = tl.where(token[None, :] <= position[:, None], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1) * scale)
        kept = tl.exp2(highest - higher)
        weights = tl.exp2(scores * scale - higher[:, None])
        total = total * kept + tl.sum(weights, 1)
        mean = tl.dot(weights.to(query.dtype), value, mean * kept[:, None], input_precision="ieee")
        highest = higher
    return highest, total, mean


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _attend_tile(
    q: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    page_tables: tl.tensor,
    out: tl.tensor,
    slots: tl.tensor,
    starts: tl.tensor,
    contexts: tl.tensor,
    count: tl.tensor,
    scale: tl.tensor,
    q_row: tl.tensor,
    q_head: tl.tensor,
    kv_page: tl.tensor,
    kv_token: tl.tensor,
    kv_head: tl.tensor,
    table_row: tl.tensor,
    lanes: tl.constexpr,
    group: tl.constexpr,
    together: tl.constexpr,
    rows: tl.constexpr,
    head_dim: tl.constexpr,
    width: tl.constexpr,
    page_size: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    """Attend with the queries of one KV head of some tokens of a sequence."""
    at_once: tl.constexpr = rows // together
    # The last tiles of a sequence take longest: they come first.
    place = tl.num_programs(1) - 1 - tl.program_id(1)
    index = tl.arange(0, lanes)
    begins = tl.load(starts + index, mask=index < count, other=0)
    ends = tl.load(starts + index + 1, mask=index < count, other=0)
    behind = tl.cumsum((ends - begins + at_once - 1) // at_once, 0)
    sequence = tl.sum((behind <= place).to(tl.int32), 0)
    if sequence >= lanes:
        return
    # Of the sequences before this one.
    before = tl.max(tl.where(index < sequence, behind, 0), 0)
    begin, end = tl.load(starts + sequence), tl.load(starts + sequence + 1)
    context = tl.load(contexts + sequence)
    table = page_tables + tl.load(slots + sequence) * table_row

    head = tl.program_id(0)
    row = tl.arange(0, rows)
    column = tl.arange(0, width)
    first = begin + (place - before) * at_once
    token = first + row // together
    heads = head * group + row % together
    inside = ((token < end) & (row % together < group))[:, None] & (column < head_dim)[None, :]
    at_q = token.to(tl.int64)[:, None] * q_row + heads[:, None] * q_head + column[None, :]
    query = tl.load(q + at_q, mask=inside, other=0.0)

    position = context + token - begin
    last = context + tl.minimum(first + at_once, end) - begin
    seen_by_all = (context + first - begin + 1) // tile * tile
    keys += head * kv_head
    values += head * kv_head
    highest = tl.full([rows], float("-inf"), tl.float32)
    total = tl.zeros([rows], tl.float32)
    mean = tl.zeros([rows, width], tl.float32)
    highest, total, mean = _attend_keys(
        *(query, position, keys, values, table, 0, seen_by_all, scale, kv_page, kv_token),
        *(highest, total, mean, head_dim, width, page_size, tile),
        diagonal=False,
    )
    highest, total, mean = _attend_keys(
        *(query, position, keys, values, table, seen_by_all, last, scale, kv_page, kv_token),
        *(highest, total, mean, head_dim, width, page_size, tile),
        diagonal=True,
    )

    heads_of_all = tl.num_programs(0) * group
    at_out = (token.to(tl.int64) * heads_of_all + heads)[:, None] * head_dim + column[None, :]
    tl.store(out + at_out, (mean / total[:, None]).to(out.dtype.element_ty), mask=inside)
