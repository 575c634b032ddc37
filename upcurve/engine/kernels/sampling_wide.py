"""Top-p without top-k: the best of the tokens that are kept, without the set of them.

The kept tokens are the first ones of an order, by logit and then by id: a token that is not kept
bounds all that are, and one that is shows that all before it are. So of the tiles' best tokens,
drawn from all, the highest that is kept is the token, once no tile whose best is not kept can have
a higher one among those before it. For each tile a program sums what lies before some of these
bests, the highest ones; a program for each row then draws anew the few tiles that need it: with
top-p 0.95 one in twenty rows has any.
"""

from __future__ import annotations

import torch

from upcurve.engine.kernels.sampling_tile import (
    NO_ID,
    TILE,
    L,
    P,
    before,
    drawn_of,
    first_of,
    key_of,
    masses_of,
    order_and_id,
    order_of,
    tile_of,
)
from upcurve.engine.platform import tl, triton, wait_for_inputs

PIVOTS = 8
"""Bests before which masses are summed. Without one more tiles are drawn anew, with one more each
tile is summed once more."""

N_PIVOTS = tl.constexpr(PIVOTS)
NO_KEY, ANY_KEY = tl.constexpr(-(2**63)), tl.constexpr(2**63 - 1)


def weigh(
    logits: torch.Tensor,
    numbers: torch.Tensor,
    found: torch.Tensor,
    ids: torch.Tensor,
    options: dict[str, bool],
) -> torch.Tensor:
    """Return the masses before the best pivots: float32 [R, tiles, PIVOTS], of rows with top-p.

    Args:
        logits: [R, V].
        numbers: as `sampling.draw` takes them.
        found: float32 [3, R, tiles], the largest logit of each tile, its best score beside that,
            and its sum of exponentials beside that.
        ids: int32 [R, tiles], of the token with that score.
        options: of the launch.
    """
    rows, tiles = ids.shape
    masses = torch.empty(rows, tiles, PIVOTS, dtype=torch.float32, device=logits.device)
    _weigh[(tiles, rows)](
        *(logits, numbers, found, ids, masses, logits.shape[1], logits.stride(0)),
        tile_lanes=triton.next_power_of_2(tiles),
        num_warps=8,
        **options,
    )
    return masses


@triton.jit  # type: ignore[untyped-decorator]
def is_wide(temperature: tl.tensor, top_k: tl.tensor, top_p: tl.tensor) -> tl.tensor:
    """Return whether a row is drawn here, as `sampling.Draw.wide`."""
    return (temperature > 0) & (top_k == 0) & (top_p < 1)


@triton.jit  # type: ignore[untyped-decorator]
def parameters_of(
    numbers: tl.tensor, row: tl.tensor, rows: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return temperature, top_k and top_p of a row."""
    temperature = tl.load(numbers + row).to(tl.int32).to(tl.float32, bitcast=True)
    top_k = tl.load(numbers + rows + row).to(tl.int32)
    top_p = tl.load(numbers + 2 * rows + row).to(tl.int32).to(tl.float32, bitcast=True)
    return temperature, top_k, top_p


@triton.jit  # type: ignore[untyped-decorator]
def seed_of(numbers: tl.tensor, row: tl.tensor, rows: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Return the seed of a row and the number of its draw."""
    return tl.load(numbers + 3 * rows + row), tl.load(numbers + 4 * rows + row)


@triton.jit  # type: ignore[untyped-decorator]
def _weigh(
    logits: tl.tensor,
    numbers: tl.tensor,
    found: tl.tensor,
    ids: tl.tensor,
    masses: tl.tensor,
    vocabulary: tl.tensor,
    row_stride: tl.tensor,
    tile_lanes: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Sum what lies before the pivots of one row in one tile."""
    wait_for_inputs(early)
    tile, row = tl.program_id(0), tl.program_id(1)
    tiles, rows = tl.num_programs(0), tl.num_programs(1)
    narrow: tl.constexpr = logits.dtype.element_ty == tl.bfloat16
    temperature, top_k, top_p = parameters_of(numbers, row, rows)
    if is_wide(temperature, top_k, top_p):
        start = logits + row.to(tl.int64) * row_stride
        scale = 1 / temperature
        x = tile_of(start, tile, vocabulary)
        largest, score, key, total = _bests(start, found, ids, row, rows, tiles, scale, tile_lanes)
        best = tl.max(largest, 0)
        is_finite = (best > float("-inf")) & (best < float("inf"))
        if is_finite & (top_p * total > 1):
            rank = _ranks(score)
            slot = tl.arange(0, N_PIVOTS)
            sums = tl.zeros([N_PIVOTS], tl.float32)
            for each in tl.static_range(N_PIVOTS):
                pivot = tl.max(tl.where(rank == each, key, NO_KEY), 0)
                order, its_id = order_and_id(pivot)
                # Of an earlier tile all of the same order come before it, of a later one none.
                least = order + (its_id // TILE <= tile).to(tl.int32)
                sums = tl.where(slot == each, _mass_from(x, least, best, scale, narrow), sums)
            lane = tl.arange(0, tile_lanes)
            own = tl.sum(tl.where(lane == tile, rank, 0), 0)
            if own < N_PIVOTS:
                pivot = tl.max(tl.where(lane == tile, key, NO_KEY), 0)
                mass = tl.sum(masses_of(before(x, tile, pivot, narrow), best, scale), 0)
                sums = tl.where(slot == own, mass, sums)
            tl.store(masses + (row * tiles + tile) * N_PIVOTS + slot, sums)


@triton.jit  # type: ignore[untyped-decorator]
def draw_wide(
    start: tl.tensor,
    numbers: tl.tensor,
    found: tl.tensor,
    ids: tl.tensor,
    masses: tl.tensor,
    vocabulary: tl.tensor,
    scale: tl.tensor,
    top_p: tl.tensor,
    row: tl.tensor,
    rows: tl.tensor,
    tiles: tl.tensor,
    tile_lanes: tl.constexpr,
) -> tl.tensor:
    """Return the token of one row, whose largest logit is finite."""
    narrow: tl.constexpr = start.dtype.element_ty == tl.bfloat16
    largest, score, key, total = _bests(start, found, ids, row, rows, tiles, scale, tile_lanes)
    best, lane = tl.max(largest, 0), tl.arange(0, tile_lanes)
    limit = top_p * total
    if limit <= 1:
        # The most likely token alone, also where top-p is less than a float can tell.
        first = tl.min(tl.where(largest == best, lane, tile_lanes), 0)
        token = first_of(tile_of(start, first, vocabulary), first, best)
    else:
        kept, lost = _known(masses, score, key, limit, row, tiles, tile_lanes)
        at, top = _highest(score, key)
        # Keys from `kept` on are known to be kept, those up to `lost` known not to be.
        while top < kept:
            if top <= lost:
                x = tile_of(start, at, vocabulary)
                base = tl.load(found + row * tiles + at)
                seed, number = seed_of(numbers, row, rows)
                new, id = drawn_of(  # noqa: A001
                    *(x, start, at, vocabulary, base, scale, seed, number, lost, True, narrow)
                )
                order = order_of(tl.load(start + id).to(tl.float32), narrow)
                score = tl.where(lane == at, new + (largest - best) * scale, score)
                key = tl.where(lane == at, key_of(order, id), key)
            else:
                sums = tl.zeros([L], tl.float32)
                for tile in range(tiles):
                    x = tile_of(start, tile, vocabulary)
                    sums += masses_of(before(x, tile, top, narrow), best, scale)
                is_kept = tl.sum(sums, 0) < limit
                kept = tl.where(is_kept, top, kept)
                lost = tl.where(is_kept, lost, top)
            at, top = _highest(score, key)
        _, token = order_and_id(top)
    return token


@triton.jit  # type: ignore[untyped-decorator]
def _bests(
    start: tl.tensor,
    found: tl.tensor,
    ids: tl.tensor,
    row: tl.tensor,
    rows: tl.tensor,
    tiles: tl.tensor,
    scale: tl.tensor,
    tile_lanes: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Return of each tile its largest logit, its best score and the key of that; the whole mass.

    Scores and masses are those of logits over temperature, the largest of the row 0.
    """
    narrow: tl.constexpr = start.dtype.element_ty == tl.bfloat16
    lane = tl.arange(0, tile_lanes)
    is_tile = lane < tiles
    at = row * tiles + lane
    largest = tl.load(found + at, mask=is_tile, other=float("-inf"))
    score = tl.load(found + rows * tiles + at, mask=is_tile, other=float("-inf"))
    sums = tl.load(found + 2 * rows * tiles + at, mask=is_tile, other=0.0)
    id = tl.load(ids + at, mask=is_tile, other=0)  # noqa: A001
    x = tl.load(start + id, mask=is_tile, other=float("-inf")).to(tl.float32)
    below = (largest - tl.max(largest, 0)) * scale
    key = tl.where(is_tile, key_of(order_of(x, narrow), id), NO_KEY)
    return largest, score + below, key, tl.sum(sums * tl.exp(below), 0)


@triton.jit  # type: ignore[untyped-decorator]
def _ranks(score: tl.tensor) -> tl.tensor:
    """Return how many scores are higher, or equal and of an earlier tile."""
    tile = tl.arange(0, score.shape[0])
    higher = score[None, :] > score[:, None]
    higher |= (score[None, :] == score[:, None]) & (tile[None, :] < tile[:, None])
    return tl.sum(higher.to(tl.int32), 1)


@triton.jit  # type: ignore[untyped-decorator]
def _known(
    masses: tl.tensor,
    score: tl.tensor,
    key: tl.tensor,
    limit: tl.tensor,
    row: tl.tensor,
    tiles: tl.tensor,
    tile_lanes: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Return the last key of the pivots that are kept and the first of those that are not."""
    lane, slot = tl.arange(0, tile_lanes), tl.arange(0, N_PIVOTS)
    at = (row * tiles + lane)[:, None] * N_PIVOTS + slot[None, :]
    mass = tl.sum(tl.load(masses + at, mask=(lane < tiles)[:, None], other=0.0), 0)
    is_pivot = _ranks(score)[:, None] == slot[None, :]
    pivot = tl.max(tl.where(is_pivot, key[:, None], NO_KEY), 0)
    kept = tl.min(tl.where((mass < limit) & (pivot > NO_KEY), pivot, ANY_KEY), 0)
    return kept, tl.max(tl.where(mass < limit, NO_KEY, pivot), 0)


@triton.jit  # type: ignore[untyped-decorator]
def _highest(score: tl.tensor, key: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Return the first tile with the highest score, and its key."""
    tile = tl.arange(0, score.shape[0])
    at = tl.min(tl.where(score == tl.max(score, 0), tile, NO_ID), 0)
    return at, tl.max(tl.where(tile == at, key, NO_KEY), 0)


@triton.jit  # type: ignore[untyped-decorator]
def _mass_from(
    x: tl.tensor, least: tl.tensor, best: tl.tensor, scale: tl.tensor, narrow: tl.constexpr
) -> tl.tensor:
    """Return the mass of the tokens of a tile with this order or a higher one."""
    sums = tl.zeros([L], tl.float32)
    for piece in tl.static_range(P):
        mass = tl.exp((x[piece] - best) * scale)
        sums += tl.where(order_of(x[piece], narrow) >= least, mass, 0.0)
    return tl.sum(sums, 0)
