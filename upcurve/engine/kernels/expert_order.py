"""The choices of all tokens sorted by expert: a counting sort in one launch."""

from __future__ import annotations

import torch

from upcurve.engine.platform import overlapping, runs_kernels, tl, triton, wait_for_inputs

MOST_AT_ONCE = 4096
"""Choices that a program looks at in one step."""


def sort_by_expert(ids: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort the choices of all tokens by expert; those of one expert stay in order.

    Args:
        ids: int32 [T, K], contiguous, below `experts`.
        experts: E.

    Returns:
        int32 [T * K]: choices (token * K + k) by expert; int32 [E]: the place after the last of
        each expert.
    """
    if runs_kernels(ids.device):
        return sort_in_one(ids, experts)
    by_expert, order = torch.sort(ids.reshape(-1), stable=True)
    wanted = torch.arange(experts, device=ids.device, dtype=ids.dtype)
    ends = torch.searchsorted(by_expert, wanted, right=True)
    return order.to(torch.int32), ends.to(torch.int32)


def sort_in_one(ids: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute `sort_by_expert` as a kernel: a program for each expert, which looks at all choices.

    No program waits for another, and nothing is added up by atomics: the order is always the same.
    """
    assert ids.is_contiguous()
    count = ids.numel()
    order = torch.empty(count, dtype=torch.int32, device=ids.device)
    ends = torch.empty(experts, dtype=torch.int32, device=ids.device)
    block = min(MOST_AT_ONCE, max(32, triton.next_power_of_2(count)))
    _sort[(experts,)](
        *(ids, order, ends, count),
        block=block,
        num_warps=max(1, min(8, block // 512)),
        **overlapping(ids.device),
    )
    return order, ends


@triton.jit  # type: ignore[untyped-decorator]
def _sort(
    ids: tl.tensor,
    order: tl.tensor,
    ends: tl.tensor,
    count: tl.tensor,
    block: tl.constexpr,
    early: tl.constexpr,
) -> None:
    wait_for_inputs(early)
    expert = tl.program_id(0)
    lane = tl.arange(0, block)
    below = tl.zeros([block], tl.int32)
    mine = tl.zeros([block], tl.int32)
    for start in range(0, count, block):
        found = tl.load(ids + start + lane, mask=start + lane < count, other=2**31 - 1)
        below += (found < expert).to(tl.int32)
        mine += (found == expert).to(tl.int32)
    begin = tl.sum(below, 0)
    total = tl.sum(mine, 0)
    tl.store(ends + expert, begin + total)
    place = begin
    if total > 0:
        for start in range(0, count, block):
            found = tl.load(ids + start + lane, mask=start + lane < count, other=2**31 - 1)
            is_mine = found == expert
            here = is_mine.to(tl.int32)
            at = place + tl.cumsum(here, 0) - 1
            tl.store(order + at, start + lane, mask=is_mine)
            place += tl.sum(here, 0)
