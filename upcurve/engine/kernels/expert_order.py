"""The choices of all tokens sorted by expert: a counting sort."""

from __future__ import annotations

import torch

from upcurve.engine.platform import overlapping, runs_kernels, tl, triton, wait_for_inputs

MOST_AT_ONCE = 4096
"""Choices that a program looks at."""


def sort_by_expert(ids: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort the choices of all tokens by expert; those of one expert stay in order.

    Args:
        ids: int32 [T, K], contiguous, below `experts`; or `experts`, which is left out.
        experts: E.

    Returns:
        int32 [T * K]: choices (token * K + k) by expert; int32 [E]: the place after the last of
        each expert. Places after the last of all are not written on a GPU.
    """
    if runs_kernels(ids.device):
        return sort_in_one(ids, experts)
    by_expert, order = torch.sort(ids.reshape(-1), stable=True)
    wanted = torch.arange(experts, device=ids.device, dtype=ids.dtype)
    ends = torch.searchsorted(by_expert, wanted, right=True)
    return order.to(torch.int32), ends.to(torch.int32)


def sort_in_one(ids: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute `sort_by_expert` as kernels: one for a few choices, three for many.

    Nothing is added up by atomics, and no order is left to chance. Of a few choices every program
    looks at all; many are counted in segments first, so that each is looked at in its own.
    """
    assert ids.is_contiguous()
    count = ids.numel()
    order = torch.empty(count, dtype=torch.int32, device=ids.device)
    ends = torch.empty(experts, dtype=torch.int32, device=ids.device)
    block = min(MOST_AT_ONCE, max(32, triton.next_power_of_2(count)))
    # No choices are one segment too: of it the ends are known.
    segments = max(1, triton.cdiv(count, block))
    lanes = triton.next_power_of_2(experts + 1)
    counts = None
    options = overlapping(ids.device)
    if segments > 1:
        counts = torch.empty(segments, lanes, dtype=torch.int32, device=ids.device)
        _count[(segments,)](ids, counts, count, experts, block=block, lanes=lanes, **options)
        _add_up[(1,)](counts, ends, segments, experts, lanes=lanes, **options)
    _sort[(experts, segments)](
        *(ids, counts, order, ends, count),
        block=block,
        lanes=lanes,
        num_warps=max(1, min(8, block // 512)),
        **options,
    )
    return order, ends


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _count(
    ids: tl.tensor,
    counts: tl.tensor,
    count: tl.tensor,
    experts: tl.tensor,
    block: tl.constexpr,
    lanes: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Count the choices of each expert in one segment."""
    wait_for_inputs(early)
    segment = tl.program_id(0)
    place = segment * block + tl.arange(0, block)
    # What is not there is counted for nobody.
    found = tl.load(ids + place, mask=place < count, other=0)
    found = tl.where(place < count, found, experts)
    tl.store(counts + segment * lanes + tl.arange(0, lanes), tl.histogram(found, lanes))


@triton.jit  # type: ignore[untyped-decorator]
def _add_up(
    counts: tl.tensor,
    ends: tl.tensor,
    segments: tl.tensor,
    experts: tl.tensor,
    lanes: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Replace the counts by the place of the first choice of each expert in each segment."""
    wait_for_inputs(early)
    lane = tl.arange(0, lanes)
    is_expert = lane < experts
    total = tl.zeros([lanes], tl.int32)
    for segment in range(segments):
        total += tl.load(counts + segment * lanes + lane, mask=is_expert, other=0)
    end = tl.cumsum(total, 0)
    tl.store(ends + lane, end, mask=is_expert)
    begin = end - total
    for segment in range(segments):
        here = tl.load(counts + segment * lanes + lane, mask=is_expert, other=0)
        tl.store(counts + segment * lanes + lane, begin, mask=is_expert)
        begin += here


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _sort(
    ids: tl.tensor,
    counts: tl.tensor,
    order: tl.tensor,
    ends: tl.tensor,
    count: tl.tensor,
    block: tl.constexpr,
    lanes: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Put one segment's choices of one expert in their places."""
    wait_for_inputs(early)
    expert, segment = tl.program_id(0), tl.program_id(1)
    place = segment * block + tl.arange(0, block)
    found = tl.load(ids + place, mask=place < count, other=2**31 - 1)
    is_mine = found == expert
    here = is_mine.to(tl.int32)
    if counts is None:
        begin = tl.sum((found < expert).to(tl.int32), 0)
        tl.store(ends + expert, begin + tl.sum(here, 0))
    else:
        begin = tl.load(counts + segment * lanes + expert)
    tl.store(order + begin + tl.cumsum(here, 0) - 1, place, mask=is_mine)
