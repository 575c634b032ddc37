"""Sampling on GPUs in two launches: one reads the logits, one ends with a token for each row.

The first splits rows into tiles. Of a row that keeps all tokens only each tile's best remains to
be compared. Of one that filters, the second launch finds the last token that is kept by halving an
interval of the logits' bit patterns, and looks only where a token can be kept: the largest logit
of each block of tokens, which the first launch leaves, bounds what can.
"""

from __future__ import annotations

from typing import Any

import torch

from upcurve.engine.platform import overlapping, tl, triton, wait_for_inputs

PIECES, LANES = 4, 2048
"""Of a tile: Philox gives four words at once, one for each piece. Noise and sums are made of it, so
that it must not depend on the batch."""
BLOCK = 128
"""Tokens of which the largest logit is kept."""
ROUNDS = 7
"""Of Philox."""

TILE = tl.constexpr(PIECES * LANES)
P, L, B, N_ROUNDS = (tl.constexpr(each) for each in (PIECES, LANES, BLOCK, ROUNDS))
BLOCKS = tl.constexpr(PIECES * LANES // BLOCK)
BLOCKS_AT_ONCE, TOKENS_AT_ONCE = tl.constexpr(16), tl.constexpr(512)
NO_ID = tl.constexpr(2**31 - 1)
LOWEST = tl.constexpr(-(2**31))


def draw_kernels(
    logits: torch.Tensor, numbers: torch.Tensor | None, *, filters: bool, no_token: int
) -> torch.Tensor:
    """Compute `sampling.draw` in two launches."""
    rows, vocabulary = logits.shape
    assert logits.stride(1) == 1
    device = logits.device
    tiles = triton.cdiv(vocabulary, PIECES * LANES)
    tokens = torch.empty(rows, dtype=torch.int64, device=device)
    # Of each tile: its largest logit; its best score or its sum of exponentials; its token.
    found = torch.empty(2, rows, tiles, dtype=torch.float32, device=device)
    ids = torch.empty(rows, tiles, dtype=torch.int32, device=device)
    blocks = candidates = None
    if filters:
        count = tiles * PIECES * LANES // BLOCK
        # The order of each block's largest logit, and the blocks that may hold a kept token.
        blocks = torch.empty(2, rows, count, dtype=torch.int32, device=device)
        candidates = torch.empty(rows, vocabulary, dtype=torch.int32, device=device)
    if rows:
        arguments = (logits, numbers, found, ids, blocks, vocabulary, logits.stride(0))
        options = {"draws": numbers is not None, "filters": filters, **overlapping(device)}
        _scan[(tiles, rows)](*arguments, num_warps=8, **options)
        _choose[(rows,)](
            *(*arguments, candidates, tokens, tiles, no_token),
            tile_lanes=triton.next_power_of_2(tiles),
            num_warps=8 if filters else 1,
            **options,
        )
    return tokens


@triton.jit  # type: ignore[untyped-decorator]
def _scan(
    logits: tl.tensor,
    numbers: tl.tensor,
    found: tl.tensor,
    ids: tl.tensor,
    blocks: tl.tensor,
    vocabulary: tl.tensor,
    row_stride: tl.tensor,
    draws: tl.constexpr,
    filters: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Reduce one tile of one row."""
    wait_for_inputs(early)
    tile, row = tl.program_id(0), tl.program_id(1)
    tiles, rows = tl.num_programs(0), tl.num_programs(1)
    id = tile * TILE + tl.arange(0, P)[:, None] * L + tl.arange(0, L)[None, :]  # noqa: A001
    start = logits + row.to(tl.int64) * row_stride
    x = tl.load(start + id, mask=id < vocabulary, other=float("-inf"))
    narrow: tl.constexpr = x.dtype == tl.bfloat16
    x = x.to(tl.float32)
    # So that a row with a NaN has no finite maximum.
    x = tl.where(x == x, x, float("inf"))
    largest = tl.max(tl.max(x, 1), 0)
    at = row * tiles + tile
    tl.store(found + at, largest)
    if draws:
        temperature, top_k, top_p = _parameters(numbers, row, rows)
        if temperature > 0:
            base = tl.where(largest > float("-inf"), largest, 0.0)
            scaled = (x - base) * (1 / temperature)
            keeps_all = (top_k == 0) & (top_p >= 1)
            if keeps_all:
                seed = tl.load(numbers + 3 * rows + row)
                number = tl.load(numbers + 4 * rows + row)
                words = _words(seed, number, tile * L + tl.arange(0, L))
                piece = tl.arange(0, P)[:, None]
                bits = tl.where(piece < 1, words[0][None, :], words[1][None, :])
                bits = tl.where(piece < 2, bits, words[2][None, :])
                bits = tl.where(piece < 3, bits, words[3][None, :])
                score = scaled + _gumbel(bits)
                best = tl.max(tl.max(score, 1), 0)
                tl.store(found + rows * tiles + at, best)
                tl.store(ids + at, _first(score == best, id))
            elif filters:
                tl.store(found + rows * tiles + at, tl.sum(tl.sum(tl.exp(scaled), 1), 0))
                block = tl.max(tl.reshape(_order(x, narrow), (BLOCKS, B)), 1)
                tl.store(blocks + at * BLOCKS + tl.arange(0, BLOCKS), block)
        else:
            tl.store(ids + at, _first(x == largest, id))
    else:
        tl.store(ids + at, _first(x == largest, id))


@triton.jit  # type: ignore[untyped-decorator]
def _choose(
    logits: tl.tensor,
    numbers: tl.tensor,
    found: tl.tensor,
    ids: tl.tensor,
    blocks: tl.tensor,
    vocabulary: tl.tensor,
    row_stride: tl.tensor,
    candidates: tl.tensor,
    tokens: tl.tensor,
    tiles: tl.tensor,
    no_token: tl.tensor,
    tile_lanes: tl.constexpr,
    draws: tl.constexpr,
    filters: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Choose the token of one row."""
    wait_for_inputs(early)
    row, rows = tl.program_id(0), tl.num_programs(0)
    tile = tl.arange(0, tile_lanes)
    is_tile = tile < tiles
    at = row * tiles + tile
    largest = tl.load(found + at, mask=is_tile, other=float("-inf"))
    best = tl.max(largest, 0)
    is_finite = (best > float("-inf")) & (best < float("inf"))
    id = tl.load(ids + at, mask=is_tile, other=0)  # noqa: A001
    token = tl.min(tl.where(largest == best, id, NO_ID), 0)
    if draws:
        temperature, top_k, top_p = _parameters(numbers, row, rows)
        if is_finite & (temperature > 0):
            value = tl.load(found + rows * tiles + at, mask=is_tile, other=0.0)
            below = (largest - best) * (1 / temperature)
            keeps_all = (top_k == 0) & (top_p >= 1)
            if keeps_all:
                score = tl.where(is_tile, value + below, float("-inf"))
                token = tl.min(tl.where(score == tl.max(score, 0), id, NO_ID), 0)
            elif filters:
                total = tl.sum(value * tl.exp(below), 0)
                limit = tl.where(top_p < 1, top_p * total, float("inf"))
                start = logits + row.to(tl.int64) * row_stride
                tile_blocks = tiles * BLOCKS
                its_blocks = blocks + row * tile_blocks
                listed = its_blocks + rows * tile_blocks
                its_candidates = candidates + row.to(tl.int64) * vocabulary
                cut, count = _gather(
                    *(start, its_blocks, listed, its_candidates, tile_blocks, vocabulary),
                    *(best, temperature, top_k, top_p, tile_lanes * BLOCKS),
                )
                seed = tl.load(numbers + 3 * rows + row)
                number = tl.load(numbers + 4 * rows + row)
                token = _draw_kept(
                    *(start, its_candidates, count, cut, best, 1 / temperature, top_k, limit),
                    *(seed, number),
                )
    tl.store(tokens + row, tl.where(is_finite, token, no_token).to(tl.int64))


@triton.jit  # type: ignore[untyped-decorator]
def _gather(
    start: tl.tensor,
    blocks: tl.tensor,
    listed: tl.tensor,
    candidates: tl.tensor,
    tile_blocks: tl.tensor,
    vocabulary: tl.tensor,
    best: tl.tensor,
    temperature: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    block_lanes: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Write the tokens that can be kept, by id; return the lowest order of them, and how many."""
    narrow: tl.constexpr = start.dtype.element_ty == tl.bfloat16
    block = tl.arange(0, block_lanes)
    orders = tl.load(blocks + block, mask=block < tile_blocks, other=LOWEST)
    # As `sampling.lowest_kept`.
    lost = tl.log(tl.maximum(1 - top_p, 2.9802322387695312e-08) / vocabulary)
    floor = tl.where(top_p < 1, best + temperature * (1.01 * lost - 0.1), float("-inf"))
    cut, end = _order(floor, narrow), _order(best, narrow) + 1
    reached = tl.sum((orders >= cut).to(tl.int32), 0)
    # At least k tokens reach what the largest of k blocks reach; a quarter more does no harm.
    most = tl.where(top_k > 0, top_k + top_k // 4, NO_ID)
    while (cut + 1 < end) & (reached > most):
        middle = _middle(cut, end)
        reaching = tl.sum((orders >= middle).to(tl.int32), 0)
        enough = reaching >= top_k
        cut = tl.where(enough, middle, cut)
        reached = tl.where(enough, reaching, reached)
        end = tl.where(enough, end, middle)
    holds = orders >= cut
    tl.store(listed + tl.cumsum(holds.to(tl.int32), 0) - 1, block, mask=holds)
    tl.debug_barrier()
    count = 0
    for first in range(0, reached, BLOCKS_AT_ONCE):
        entry = first + tl.arange(0, BLOCKS_AT_ONCE)
        held = tl.load(listed + entry, mask=entry < reached, other=tile_blocks)
        ids = held[:, None] * B + tl.arange(0, B)[None, :]
        x = tl.load(start + ids, mask=ids < vocabulary, other=float("-inf")).to(tl.float32)
        can = (ids < vocabulary) & (_order(x, narrow) >= cut)
        can = tl.reshape(can.to(tl.int32), (BLOCKS_AT_ONCE * B,))
        at = candidates + count + tl.cumsum(can, 0) - 1
        tl.store(at, tl.reshape(ids, (BLOCKS_AT_ONCE * B,)), mask=can > 0)
        count += tl.sum(can, 0)
    tl.debug_barrier()
    return cut, count


@triton.jit  # type: ignore[untyped-decorator]
def _draw_kept(
    start: tl.tensor,
    candidates: tl.tensor,
    count: tl.tensor,
    cut: tl.tensor,
    best: tl.tensor,
    scale: tl.tensor,
    top_k: tl.tensor,
    limit: tl.tensor,
    seed: tl.tensor,
    number: tl.tensor,
) -> tl.tensor:
    """Draw among the candidates that are kept."""
    narrow: tl.constexpr = start.dtype.element_ty == tl.bfloat16
    rank_limit = tl.where(top_k > 0, top_k, NO_ID)
    # The first of the tokens of order `last` is kept, none of a lower order is.
    below, last = cut - 1, _order(best, narrow)
    while below + 1 < last:
        middle = _middle(below, last)
        rank, mass = _before(start, candidates, count, best, scale, middle)
        keeps = (rank < rank_limit) & (mass < limit)
        last = tl.where(keeps, middle, last)
        below = tl.where(keeps, below, middle)
    rank, mass = _before(start, candidates, count, best, scale, last)
    top, token = float("-inf"), 0
    for first in range(0, count, TOKENS_AT_ONCE):
        id, scaled, order = _candidates(start, candidates, count, best, scale, first)  # noqa: A001
        ties = (order == last).to(tl.int32)
        earlier = tl.cumsum(ties, 0) - ties
        keeps = (rank + earlier < rank_limit) & (mass + earlier * tl.exp(scaled) < limit)
        # The most likely token, where top-p is less than a float can tell.
        keeps = keeps | ((rank + earlier) == 0)
        keeps = (order > last) | ((order == last) & keeps)
        words = _words(seed, number, id // TILE * L + id % L)
        piece = id % TILE // L
        bits = tl.where(piece < 1, words[0], words[1])
        bits = tl.where(piece < 2, bits, words[2])
        bits = tl.where(piece < 3, bits, words[3])
        score = tl.where(keeps, scaled + _gumbel(bits), float("-inf"))
        highest = tl.max(score, 0)
        token = tl.where(highest > top, _first(score == highest, id), token)
        top = tl.maximum(top, highest)
        drawn_ties = tl.sum(ties, 0)
        rank += drawn_ties
        tie_mass = tl.max(tl.where(ties > 0, tl.exp(scaled), 0.0), 0)
        mass += drawn_ties * tie_mass
    return token


@triton.jit  # type: ignore[untyped-decorator]
def _before(
    start: tl.tensor,
    candidates: tl.tensor,
    count: tl.tensor,
    best: tl.tensor,
    scale: tl.tensor,
    order: tl.tensor,
) -> tuple[tl.tensor, tl.tensor]:
    """Return how many candidates have a higher order, and the mass of them."""
    ranks = tl.zeros([TOKENS_AT_ONCE], tl.int32)
    masses = tl.zeros([TOKENS_AT_ONCE], tl.float32)
    for first in range(0, count, TOKENS_AT_ONCE):
        _, scaled, orders = _candidates(start, candidates, count, best, scale, first)
        ranks += (orders > order).to(tl.int32)
        masses += tl.where(orders > order, tl.exp(scaled), 0.0)
    return tl.sum(ranks, 0), tl.sum(masses, 0)


@triton.jit  # type: ignore[untyped-decorator]
def _candidates(
    start: tl.tensor,
    candidates: tl.tensor,
    count: tl.tensor,
    best: tl.tensor,
    scale: tl.tensor,
    first: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return ids, logits over temperature (the largest 0) and orders: the lowest past the end."""
    narrow: tl.constexpr = start.dtype.element_ty == tl.bfloat16
    entry = first + tl.arange(0, TOKENS_AT_ONCE)
    inside = entry < count
    id = tl.load(candidates + entry, mask=inside, other=0)  # noqa: A001
    x = tl.load(start + id, mask=inside, other=float("-inf")).to(tl.float32)
    return id, (x - best) * scale, tl.where(inside, _order(x, narrow), LOWEST)


@triton.jit  # type: ignore[untyped-decorator]
def _parameters(
    numbers: tl.tensor, row: tl.tensor, rows: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return temperature, top_k and top_p of a row."""
    temperature = tl.load(numbers + row).to(tl.int32).to(tl.float32, bitcast=True)
    top_k = tl.load(numbers + rows + row).to(tl.int32)
    top_p = tl.load(numbers + 2 * rows + row).to(tl.int32).to(tl.float32, bitcast=True)
    return temperature, top_k, top_p


@triton.jit  # type: ignore[untyped-decorator]
def _order(x: tl.tensor, narrow: tl.constexpr) -> tl.tensor:
    """Return whole numbers that order as float32 do: of bfloat16 (rounded down to one) 16 bits."""
    # Both zeros are one number.
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    # Of negative numbers the larger has the smaller bits.
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return order >> 16 if narrow else order


@triton.jit  # type: ignore[untyped-decorator]
def _middle(low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """Return the mean, rounded down, without overflow."""
    return (low >> 1) + (high >> 1) + (low & high & 1)


@triton.jit  # type: ignore[untyped-decorator]
def _first(is_one: tl.tensor, id: tl.tensor) -> tl.tensor:  # noqa: A002
    """Return the lowest id of those that are one."""
    lowest = tl.where(is_one, id, NO_ID)
    if len(lowest.shape) == 2:
        lowest = tl.min(lowest, 1)
    return tl.min(lowest, 0)


@triton.jit  # type: ignore[untyped-decorator]
def _words(seed: tl.tensor, number: tl.tensor, counters: tl.tensor) -> Any:
    """Compute `sampling.philox`: four words."""
    zeros = counters * 0
    low, high = zeros + number.to(tl.int32), zeros + (number >> 32).to(tl.int32)
    return tl.philox(seed, counters, low, high, zeros, N_ROUNDS)


@triton.jit  # type: ignore[untyped-decorator]
def _gumbel(bits: tl.tensor) -> tl.tensor:
    """Return the noise of uint32, as `sampling.gumbel_noise`."""
    u = tl.minimum((bits.to(tl.float32) + 0.5) * 2.3283064365386963e-10, 0.99999994)
    exponential = tl.where(u < 0.0009765625, u + 0.5 * u * u, -tl.log(1 - u))
    return -tl.log(exponential)
