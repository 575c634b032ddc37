"""Places of tiles, found on the device, against a list of every group's tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.engine.kernels.groups import places_of, tile_of
from upcurve.engine.platform import HAS_TRITON, INTERPRETED, tl, triton

pytestmark = pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter")


@triton.jit  # type: ignore[untyped-decorator]
def _find(  # type: ignore[no-untyped-def]
    ends,
    found,
    groups: tl.constexpr,
    lanes: tl.constexpr,
    by_row: tl.constexpr,
    tile_rows: tl.constexpr,
):
    place = tl.program_id(0)
    group, first, last = tile_of(ends, place, groups, lanes, by_row, tile_rows)
    tl.store(found + 3 * place, group)
    tl.store(found + 3 * place + 1, first)
    tl.store(found + 3 * place + 2, last)


def tiles(sizes: list[int], tile_rows: int) -> list[tuple[int, int, int]]:
    """Return what the places find, without those that have no tile."""
    ends = torch.tensor(sizes, dtype=torch.int32).cumsum(0).int()
    groups, count = len(sizes), sum(sizes)
    places, by_row = places_of(count, groups, tile_rows)
    found = torch.full((places, 3), -1, dtype=torch.int32)
    if places:
        _find[(places,)](
            ends, found, groups, triton.next_power_of_2(groups), by_row=by_row, tile_rows=tile_rows
        )
    return [(group, first, last) for group, first, last in found.tolist() if first < last]


def wanted(sizes: list[int], tile_rows: int) -> list[tuple[int, int, int]]:
    every, begin = [], 0
    for group, size in enumerate(sizes):
        every += [(group, first, begin + size) for first in range(begin, begin + size, tile_rows)]
        begin += size
    return every


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=9),
    tile_rows=st.sampled_from([2, 4, 16]),
)
def test_every_tile_is_found_once(sizes: list[int], tile_rows: int) -> None:
    assert sorted(tiles(sizes, tile_rows)) == wanted(sizes, tile_rows)


@pytest.mark.parametrize("group", [0, 3, 8])
@pytest.mark.parametrize("size", [1, 9, 10, 64])
def test_all_rows_in_one_group(group: int, size: int) -> None:
    sizes = [0] * 9
    sizes[group] = size
    assert tiles(sizes, 4) == wanted(sizes, 4)


@given(
    count=st.integers(0, 80_000), groups=st.integers(1, 513), tile_rows=st.sampled_from([16, 64])
)
def test_few_rows_have_no_idle_places(count: int, groups: int, tile_rows: int) -> None:
    places, by_row = places_of(count, groups, tile_rows)
    assert by_row == (count <= groups)
    assert places <= count
    assert by_row or places <= count / tile_rows + groups
