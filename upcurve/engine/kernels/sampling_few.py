"""Top-k, with top-p or without: the last token that is kept is found among those that can be.

One program for each row halves an interval of the logits' bit patterns, and looks only where a
token can be kept: the largest logit of each block of tokens bounds what can.
"""

from __future__ import annotations

from upcurve.engine.kernels.sampling_tile import NO_ID, noise_of, order_of
from upcurve.engine.platform import tl, triton

BLOCK = 128
"""Tokens of which the largest logit is kept."""

B = tl.constexpr(BLOCK)
BLOCKS_AT_ONCE, TOKENS_AT_ONCE = tl.constexpr(16), tl.constexpr(512)
LOWEST = tl.constexpr(-(2**31))


@triton.jit  # type: ignore[untyped-decorator]
def draw_few(
    start: tl.tensor,
    blocks: tl.tensor,
    listed: tl.tensor,
    candidates: tl.tensor,
    tile_blocks: tl.tensor,
    vocabulary: tl.tensor,
    best: tl.tensor,
    total: tl.tensor,
    temperature: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    seed: tl.tensor,
    number: tl.tensor,
    block_lanes: tl.constexpr,
) -> tl.tensor:
    """Return the token of one row, whose largest logit, `best`, is finite."""
    cut, count = _gather(
        *(start, blocks, listed, candidates, tile_blocks, vocabulary),
        *(best, temperature, top_k, top_p, block_lanes),
    )
    limit = tl.where(top_p < 1, top_p * total, float("inf"))
    return _draw_kept(
        *(start, candidates, count, cut, best, 1 / temperature, top_k, limit, seed, number),
    )


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
    cut, end = order_of(floor, narrow), order_of(best, narrow) + 1
    reached = tl.sum((orders >= cut).to(tl.int32), 0)
    # At least k tokens reach what the largest of k blocks reach; a quarter more does no harm.
    most = top_k + top_k // 4
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
        can = (ids < vocabulary) & (order_of(x, narrow) >= cut)
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
    # The first of the tokens of order `last` is kept, none of a lower order is.
    below, last = cut - 1, order_of(best, narrow)
    while below + 1 < last:
        middle = _middle(below, last)
        rank, mass = _before(start, candidates, count, best, scale, middle)
        keeps = (rank < top_k) & (mass < limit)
        last = tl.where(keeps, middle, last)
        below = tl.where(keeps, below, middle)
    rank, mass = _before(start, candidates, count, best, scale, last)
    top, token = float("-inf"), 0
    for first in range(0, count, TOKENS_AT_ONCE):
        id, scaled, order = _candidates(start, candidates, count, best, scale, first)  # noqa: A001
        ties = (order == last).to(tl.int32)
        earlier = tl.cumsum(ties, 0) - ties
        keeps = (rank + earlier < top_k) & (mass + earlier * tl.exp(scaled) < limit)
        # The most likely token, where top-p is less than a float can tell.
        keeps = keeps | ((rank + earlier) == 0)
        keeps = (order > last) | ((order == last) & keeps)
        score = tl.where(keeps, scaled + noise_of(seed, number, id), float("-inf"))
        highest = tl.max(score, 0)
        token = tl.where(highest > top, tl.min(tl.where(score == highest, id, NO_ID), 0), token)
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
    return id, (x - best) * scale, tl.where(inside, order_of(x, narrow), LOWEST)


@triton.jit  # type: ignore[untyped-decorator]
def _middle(low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """Return the mean, rounded down, without overflow."""
    return (low >> 1) + (high >> 1) + (low & high & 1)
