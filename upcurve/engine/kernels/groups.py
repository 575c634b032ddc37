"""Which rows of which group a program takes, where rows are sorted by group.

What is launched follows from the shapes alone: a program finds its tile on the device.
"""

from __future__ import annotations

from upcurve.engine.platform import tl, triton


def places_of(count: int, groups: int, tile_rows: int) -> tuple[int, bool]:
    """Return how many places there are for tiles of rows, and whether every row is one.

    At most count / tile_rows + groups, whatever rows the groups have.
    """
    if count <= groups:
        return count, True
    return count // tile_rows + groups, False


@triton.jit  # type: ignore[untyped-decorator]
def tile_of(
    ends: tl.tensor,
    place: tl.tensor,
    groups: tl.constexpr,
    lanes: tl.constexpr,
    by_row: tl.constexpr,
    tile_rows: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return the group of a place, its tile's first row, and the row after the group's last.

    Where a place has no tile the first row is not before the other one. Every row is a place, of
    which every `tile_rows`-th of a group has a tile; or group g with rows from b up to e has the
    places from b // tile_rows + g up to e // tile_rows + g + 1, at most one more than it needs:
    so no sum over the groups is needed to find them.
    """
    index = tl.arange(0, lanes)
    end = tl.load(ends + index, mask=index < groups, other=2**31 - 1)
    passed = end <= place if by_row else end // tile_rows + index + 1 <= place
    group = tl.sum(passed.to(tl.int32), 0)
    begin = tl.load(ends + group - 1, mask=group > 0, other=0)
    last = tl.load(ends + group, mask=group < groups, other=0)
    if by_row:
        first = tl.where((place - begin) % tile_rows == 0, place, last)
    else:
        first = begin + (place - begin // tile_rows - group) * tile_rows
    return group, first, last
