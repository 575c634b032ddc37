"""The choices of all tokens sorted by expert: a counting sort."""

from __future__ import annotations

import torch

from upcurve.engine.platform import overlapping, runs_kernels, tl, triton, wait_for_inputs

MOST_AT_ONCE = 4096
"""Choices of which every program looks at all."""
SEGMENT = 256
"""Choices that are counted and sorted together, where there are more."""
COMPARED, SUMMED, LANES = 32, 128, 16
"""Choices, segments and experts that a program takes in a step."""


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
    """Compute `sort_by_expert` as kernels: one for a few choices, four for many.

    Nothing is added up by atomics, and no order is left to chance. Of a few choices every program
    looks at all; many are counted in segments, the counts added up over segments and experts, and
    each choice goes to where those of its expert begin, behind the equal ones before it.
    """
    assert ids.is_contiguous()
    count = ids.numel()
    order = torch.empty(count, dtype=torch.int32, device=ids.device)
    ends = torch.empty(experts, dtype=torch.int32, device=ids.device)
    lanes = triton.next_power_of_2(experts + 1)
    options = overlapping(ids.device)
    if count <= MOST_AT_ONCE:
        block = max(32, triton.next_power_of_2(count))
        _sort_few[(experts,)](
            *(ids, order, ends, count),
            block=block,
            num_warps=max(1, min(8, block // 512)),
            **options,
        )
        return order, ends
    segments = triton.cdiv(count, SEGMENT)
    before = torch.empty(segments, lanes, dtype=torch.int32, device=ids.device)
    totals = torch.empty(lanes, dtype=torch.int32, device=ids.device)
    _count[(segments,)](ids, before, count, experts, segment=SEGMENT, lanes=lanes, **options)
    step = min(LANES, lanes)
    _add_up[(lanes // step,)](
        before, totals, segments, lanes=lanes, step=step, at_once=SUMMED, **options
    )
    _add_experts[(1,)](totals, ends, experts, lanes=lanes, **options)
    _sort_many[(segments,)](
        *(ids, before, order, ends, count, experts),
        segment=SEGMENT,
        lanes=lanes,
        compared=COMPARED,
        **options,
    )
    return order, ends


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _sort_few(
    ids: tl.tensor,
    order: tl.tensor,
    ends: tl.tensor,
    count: tl.tensor,
    block: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Put the choices of one expert in their places."""
    wait_for_inputs(early)
    expert = tl.program_id(0)
    place = tl.arange(0, block)
    found = tl.load(ids + place, mask=place < count, other=2**31 - 1)
    is_mine = found == expert
    here = is_mine.to(tl.int32)
    begin = tl.sum((found < expert).to(tl.int32), 0)
    tl.store(ends + expert, begin + tl.sum(here, 0))
    tl.store(order + begin + tl.cumsum(here, 0) - 1, place, mask=is_mine)


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _count(
    ids: tl.tensor,
    counts: tl.tensor,
    count: tl.tensor,
    experts: tl.tensor,
    segment: tl.constexpr,
    lanes: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Count the choices of each expert in one segment."""
    wait_for_inputs(early)
    place = tl.program_id(0) * segment + tl.arange(0, segment)
    # What is not there is counted for nobody.
    found = tl.load(ids + place, mask=place < count, other=0)
    found = tl.where(place < count, found, experts)
    tl.store(counts + tl.program_id(0) * lanes + tl.arange(0, lanes), tl.histogram(found, lanes))


@triton.jit(do_not_specialize=["segments"])  # type: ignore[untyped-decorator]
def _add_up(
    counts: tl.tensor,
    totals: tl.tensor,
    segments: tl.tensor,
    lanes: tl.constexpr,
    step: tl.constexpr,
    at_once: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Replace counts of some experts by how many come in earlier segments; keep the totals."""
    wait_for_inputs(early)
    lane = tl.program_id(0) * step + tl.arange(0, step)
    total = tl.zeros([step], tl.int32)
    for first in range(0, segments, at_once):
        segment = first + tl.arange(0, at_once)
        at = counts + segment[:, None] * lanes + lane[None, :]
        inside = (segment < segments)[:, None]
        here = tl.load(at, mask=inside, other=0)
        tl.store(at, total[None, :] + tl.cumsum(here, 0) - here, mask=inside)
        total += tl.sum(here, 0)
    tl.store(totals + lane, total)


@triton.jit  # type: ignore[untyped-decorator]
def _add_experts(
    totals: tl.tensor,
    ends: tl.tensor,
    experts: tl.tensor,
    lanes: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Find where the choices of each expert end."""
    wait_for_inputs(early)
    lane = tl.arange(0, lanes)
    total = tl.load(totals + lane, mask=lane < experts, other=0)
    tl.store(ends + lane, tl.cumsum(total, 0), mask=lane < experts)


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _sort_many(
    ids: tl.tensor,
    before: tl.tensor,
    order: tl.tensor,
    ends: tl.tensor,
    count: tl.tensor,
    experts: tl.tensor,
    segment: tl.constexpr,
    lanes: tl.constexpr,
    compared: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Put the choices of one segment in their places."""
    wait_for_inputs(early)
    start = tl.program_id(0) * segment
    place = start + tl.arange(0, segment)
    found = tl.load(ids + place, mask=place < count, other=2**31 - 1)
    wanted = found < experts
    equal = tl.zeros([segment], tl.int32)
    for first in range(0, segment, compared):
        other = start + first + tl.arange(0, compared)
        others = tl.load(ids + other, mask=other < count, other=2**31 - 1)
        is_before = (others[None, :] == found[:, None]) & (other[None, :] < place[:, None])
        equal += tl.sum(is_before.to(tl.int32), 1)
    begin = tl.load(ends + found - 1, mask=wanted & (found > 0), other=0)
    begin += tl.load(before + tl.program_id(0) * lanes + found, mask=wanted, other=0)
    tl.store(order + begin + equal, place, mask=wanted)
