"""Rows of tokens copied from cache to cache, on one GPU or from one to another."""

from __future__ import annotations

import torch

from upcurve.engine.platform import runs_kernels, tl, triton

ELEMENTS_AT_ONCE = 4096
"""Of a program: 32 KiB of int64, enough to keep a link between GPUs busy with a few programs."""


def copy_rows(
    source: torch.Tensor, target: torch.Tensor, here: torch.Tensor, there: torch.Tensor
) -> None:
    """Copy rows `here` of keys and values to rows `there`; one launch on a GPU.

    Args:
        source: [2, rows, heads, units], whole numbers, units contiguous.
        target: [2, other rows, heads, units], likewise.
        here: int64 [N].
        there: int64 [N], of which no two are equal.
    """
    if runs_kernels(source.device):
        copy_in_one(source, target, here, there)
    else:
        target.index_copy_(1, there, source.index_select(1, here))


def copy_in_one(
    source: torch.Tensor, target: torch.Tensor, here: torch.Tensor, there: torch.Tensor
) -> None:
    """Compute `copy_rows` as a kernel."""
    _, _, heads, units = source.shape
    assert source.stride(3) == target.stride(3) == 1
    assert len(here) == len(there)
    width = triton.next_power_of_2(heads * units)
    rows = max(1, ELEMENTS_AT_ONCE // width)
    if len(here) == 0 or heads * units == 0:
        return
    _copy[(triton.cdiv(len(here), rows), 2)](
        *(source, target, here, there, len(here)),
        *source.stride()[:3],
        *target.stride()[:3],
        heads=heads,
        units=units,
        width=width,
        rows=rows,
    )


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _copy(
    source: tl.tensor,
    target: tl.tensor,
    here: tl.tensor,
    there: tl.tensor,
    count: tl.tensor,
    source_kind: tl.tensor,
    source_row: tl.tensor,
    source_head: tl.tensor,
    target_kind: tl.tensor,
    target_row: tl.tensor,
    target_head: tl.tensor,
    heads: tl.constexpr,
    units: tl.constexpr,
    width: tl.constexpr,
    rows: tl.constexpr,
) -> None:
    place = tl.program_id(0) * rows + tl.arange(0, rows)
    kind = tl.program_id(1).to(tl.int64)
    unit = tl.arange(0, width)
    inside = place < count
    taken = tl.load(here + place, mask=inside, other=0)
    given = tl.load(there + place, mask=inside, other=0)
    both = inside[:, None] & (unit < heads * units)[None, :]
    of_source = kind * source_kind + taken[:, None] * source_row
    of_target = kind * target_kind + given[:, None] * target_row
    of_source += (unit // units * source_head + unit % units)[None, :]
    of_target += (unit // units * target_head + unit % units)[None, :]
    tl.store(target + of_target, tl.load(source + of_source, mask=both, other=0), mask=both)
