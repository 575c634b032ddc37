"""What one program of a product of experts computes."""

from __future__ import annotations

from dataclasses import dataclass

PROGRAMS = 128
"""Wanted at least, about one per multiprocessor."""
DOWN_BYTES = 32 * 1024
"""Of the weight in one step of the second product, which is all channels of some columns."""
FEW_ROWS = 32
"""Of an expert on average: up to so many the weight is the left side of the product."""


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
