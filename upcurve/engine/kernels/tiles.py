"""What one program of a product computes: rows x columns of the result, some channels at a time."""

from __future__ import annotations

from dataclasses import dataclass

PROGRAMS = 128
"""Wanted at least, about one per multiprocessor: narrower tiles read the rows more often."""
STAGE_BYTES = 80 * 1024
"""Of tiles in flight in one program: two programs and more run on a multiprocessor."""
DOWN_BYTES = 32 * 1024
"""Of the weight in one step of the second product, which is all channels of some columns."""
FEW_ROWS = 32
"""Of an expert on average: up to so many the weight is the left side of the product."""


@dataclass(frozen=True, slots=True)
class Tile:
    """What one program computes: rows x columns of the result, some channels at a time."""

    rows: int
    columns: int
    """Divide 128: they share a scale."""
    depth: int
    """Channels of a step; 128 with scales."""
    warps: int
    stages: int
    """Steps that are in flight or in use at once."""

    @classmethod
    def of(cls, *, rows: int, groups: int, columns: int, depth: int, element_size: int) -> Tile:
        """Choose for [rows, depth] in so many groups times [groups, columns, depth].

        Groups differ: tiles hold half as many rows again as the mean of several.
        """
        usual = rows if groups == 1 else 1.5 * rows / groups
        height = 16
        while height < min(usual, 128):
            height *= 2
        tiles = -(-rows // height) if groups == 1 else min(rows, groups)
        width = 128
        while width > 16 and tiles * -(-columns // width) < PROGRAMS:
            width //= 2
        step = 128 // element_size
        stage = (height + width) * 128
        return cls(
            rows=height,
            columns=width,
            depth=step,
            warps=8 if height * width == 128 * 128 else 4,
            stages=min(max(3, STAGE_BYTES // stage), 6, max(2, -(-depth // step))),
        )


@dataclass(frozen=True, slots=True)
class ExpertTile:
    """What one program of a product of experts computes."""

    rows: int
    columns: int
    """Of the result at a time; divides 128."""
    warps: int
    stages: int
    """Steps that are in flight or in use at once."""

    @classmethod
    def of_gate_up(cls, *, rows: int, experts: int, columns: int) -> ExpertTile:
        """Choose for so many rows of all experts and columns of the gated result."""
        if rows / experts > FEW_ROWS:
            return cls(rows=64, columns=64, warps=4, stages=3)
        width = _width(64, min(rows, experts), columns)
        return cls(rows=_height(rows, experts), columns=width, warps=4, stages=4)

    @classmethod
    def of_down(
        cls, *, rows: int, experts: int, columns: int, depth: int, element_size: int
    ) -> ExpertTile:
        """Choose for so many rows of all experts, columns of the result and channels."""
        most = 64
        while most > 16 and most * depth * element_size > DOWN_BYTES:
            most //= 2
        if rows / experts > FEW_ROWS:
            tall = 128 if element_size == 1 else 64
            return cls(rows=tall, columns=most, warps=tall // 16, stages=3)
        width = _width(2 * most, min(rows, experts), columns)
        return cls(rows=_height(rows, experts), columns=width, warps=4, stages=2)


def _width(most: int, tiles: int, columns: int) -> int:
    """Return the columns of a tile: so few that every multiprocessor has one."""
    width = most
    while width > 16 and tiles * -(-columns // width) < PROGRAMS:
        width //= 2
    return width


def _height(rows: int, experts: int) -> int:
    """Return a tile's rows: half as many again as experts have on average, for they differ."""
    height = 16
    while height < min(1.5 * rows / experts, 64):
        height *= 2
    return height
