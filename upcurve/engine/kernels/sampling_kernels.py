"""Sampling on GPUs: one launch reads the logits, one ends with a token for each row.

The first splits rows into tiles. Of a row that keeps all tokens only each tile's best remains to
be compared. Of one with top-k the last finds what is kept (`sampling_few`). Where a row has top-p
alone, a launch between the two reads the logits again (`sampling_wide`).
"""

from __future__ import annotations

import torch

from upcurve.engine.kernels.sampling_few import BLOCK, draw_few
from upcurve.engine.kernels.sampling_tile import (
    LANES,
    NO_ID,
    PIECES,
    P,
    drawn_of,
    first_of,
    largest_of,
    masses_of,
    order_of,
    tile_of,
)
from upcurve.engine.kernels.sampling_wide import draw_wide, is_wide, parameters_of, seed_of, weigh
from upcurve.engine.platform import overlapping, tl, triton, wait_for_inputs

B, BLOCKS = tl.constexpr(BLOCK), tl.constexpr(LANES // BLOCK)
"""Tokens of a block, and blocks of a piece."""


def draw_kernels(
    logits: torch.Tensor, numbers: torch.Tensor | None, *, few: bool, wide: bool, no_token: int
) -> torch.Tensor:
    """Compute `sampling.draw` in two launches; one more for wide rows, one more beside few ones."""
    rows, vocabulary = logits.shape
    assert logits.stride(1) == 1
    device = logits.device
    tiles = triton.cdiv(vocabulary, PIECES * LANES)
    tokens = torch.empty(rows, dtype=torch.int64, device=device)
    if not rows:
        return tokens
    # Of each tile: its largest logit; its best score and its sum of exponentials beside that.
    found = torch.empty(3, rows, tiles, dtype=torch.float32, device=device)
    ids = torch.empty(rows, tiles, dtype=torch.int32, device=device)
    blocks = candidates = masses = None
    if few:
        count = tiles * PIECES * LANES // BLOCK
        # The order of each block's largest logit, and the blocks that may hold a kept token.
        blocks = torch.empty(2, rows, count, dtype=torch.int32, device=device)
        candidates = torch.empty(rows, vocabulary, dtype=torch.int32, device=device)
    arguments = (logits, numbers, found, ids, blocks, vocabulary, logits.stride(0))
    launch = overlapping(device)
    options = {"draws": numbers is not None, **launch}
    _scan[(tiles, rows)](*arguments, num_warps=8, few=few, wide=wide, **options)
    if wide:
        assert numbers is not None
        masses = weigh(logits, numbers, found, ids, launch)
    # No program has room for both: each leaves the rows of the other alone.
    for its_few, its_wide in ((True, False), (False, True)) if few and wide else ((few, wide),):
        _choose[(rows,)](
            *(*arguments, candidates, masses, tokens, tiles, no_token),
            tile_lanes=triton.next_power_of_2(tiles),
            few=its_few,
            wide=its_wide,
            num_warps=8 if few or wide else 1,
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
    few: tl.constexpr,
    wide: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Reduce one tile of one row."""
    wait_for_inputs(early)
    tile, row = tl.program_id(0), tl.program_id(1)
    tiles, rows = tl.num_programs(0), tl.num_programs(1)
    narrow: tl.constexpr = logits.dtype.element_ty == tl.bfloat16
    start = logits + row.to(tl.int64) * row_stride
    x = tile_of(start, tile, vocabulary)
    largest = largest_of(x)
    at = row * tiles + tile
    tl.store(found + at, largest)
    if draws:
        temperature, top_k, top_p = parameters_of(numbers, row, rows)
        if temperature > 0:
            base = tl.where(largest > float("-inf"), largest, 0.0)
            scale = 1 / temperature
            if few or wide:  # noqa: SIM102
                if (top_k > 0) | (top_p < 1):
                    tl.store(found + 2 * rows * tiles + at, tl.sum(masses_of(x, base, scale), 0))
            if top_k == 0:
                seed, number = seed_of(numbers, row, rows)
                best, id = drawn_of(  # noqa: A001
                    *(x, start, tile, vocabulary, base, scale, seed, number, 0, False, narrow)
                )
                tl.store(found + rows * tiles + at, best)
                tl.store(ids + at, id)
            elif few:
                for piece in tl.static_range(P):
                    block = tl.max(tl.reshape(order_of(x[piece], narrow), (BLOCKS, B)), 1)
                    its_blocks = blocks + (at * P + piece) * BLOCKS
                    tl.store(its_blocks + tl.arange(0, BLOCKS), block)
        else:
            tl.store(ids + at, first_of(x, tile, largest))
    else:
        tl.store(ids + at, first_of(x, tile, largest))


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
    masses: tl.tensor,
    tokens: tl.tensor,
    tiles: tl.tensor,
    no_token: tl.tensor,
    tile_lanes: tl.constexpr,
    draws: tl.constexpr,
    few: tl.constexpr,
    wide: tl.constexpr,
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
        temperature, top_k, top_p = parameters_of(numbers, row, rows)
        if is_finite & (temperature > 0):
            scale = 1 / temperature
            start = logits + row.to(tl.int64) * row_stride
            if (top_k == 0) & (top_p >= 1):
                score = tl.load(found + rows * tiles + at, mask=is_tile, other=float("-inf"))
                score += (largest - best) * scale
                token = tl.min(tl.where(score == tl.max(score, 0), id, NO_ID), 0)
            if few:  # noqa: SIM102
                if top_k > 0:
                    sums = tl.load(found + 2 * rows * tiles + at, mask=is_tile, other=0.0)
                    total = tl.sum(sums * tl.exp((largest - best) * scale), 0)
                    seed, number = seed_of(numbers, row, rows)
                    tile_blocks = tiles * P * BLOCKS
                    its_blocks = blocks + row * tile_blocks
                    token = draw_few(
                        *(start, its_blocks, its_blocks + rows * tile_blocks),
                        *(candidates + row.to(tl.int64) * vocabulary, tile_blocks, vocabulary),
                        *(best, total, temperature, top_k, top_p, seed, number),
                        tile_lanes * P * BLOCKS,
                    )
            if wide:  # noqa: SIM102
                if is_wide(temperature, top_k, top_p):
                    token = draw_wide(
                        *(start, numbers, found, ids, masses, vocabulary, scale, top_p),
                        *(row, rows, tiles, tile_lanes),
                    )
    token = tl.where(is_finite, token, no_token).to(tl.int64)
    if few or wide:
        # Read anew: nothing is kept for it.
        temperature, top_k, top_p = parameters_of(numbers, row, rows)
        is_of_other = is_wide(temperature, top_k, top_p) if few else (temperature > 0) & (top_k > 0)
        tl.store(tokens + row, token, mask=is_of_other == 0)
    else:
        tl.store(tokens + row, token)
