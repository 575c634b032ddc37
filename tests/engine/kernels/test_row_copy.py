"""Rows copied from cache to cache, under Triton's interpreter and in torch, against indexing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.engine.kernels.row_copy import copy_in_one, copy_rows
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

ways = pytest.mark.parametrize(
    "way",
    [
        copy_rows,
        pytest.param(
            copy_in_one,
            marks=pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no interpreter"),
        ),
    ],
)


@ways
@settings(max_examples=25)
@given(
    count=st.integers(0, 40),
    heads=st.integers(1, 3),
    units=st.integers(1, 70),
    spare=st.integers(0, 2),
    dtype=st.sampled_from([torch.uint8, torch.int16, torch.int64]),
)
def test_rows_come_where_they_belong_and_nothing_else_changes(  # type: ignore[no-untyped-def]
    way, count: int, heads: int, units: int, spare: int, dtype: torch.dtype
) -> None:
    """Heads are a part of those of either cache, so that rows have gaps."""
    draw = torch.Generator().manual_seed(count)
    sizes = (2, 45, heads + spare, units), (2, 50, heads + 1, units)
    whole, before = (torch.randint(0, 120, size, generator=draw).to(dtype) for size in sizes)
    here = torch.randperm(45, generator=draw)[:count]
    there = torch.randperm(50, generator=draw)[:count]
    after = before.clone()
    way(whole[:, :, spare:], after[:, :, 1:], here, there)
    wanted = before.clone()
    wanted[:, there, 1:] = whole[:, here, spare:]
    assert torch.equal(after, wanted)
