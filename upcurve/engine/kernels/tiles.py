"""How products are divided among programs: the rules where nothing was measured on a chip."""

from __future__ import annotations

from dataclasses import dataclass

PROGRAMS = 128
"""Wanted at least, about one per multiprocessor: narrower tiles read the rows more often."""
MOST_SHARES = 8
"""Of the channels of a dense product: all of them are summed by one program."""
FEW_ROWS = 32
"""Of an expert on average: up to so many the weight is the left side of the product."""
DOWN_BYTES = 64 * 1024
"""Of the weight in one step of the experts' second product, which is all channels of a column."""


@dataclass(frozen=True, slots=True)
class Tile:
    """What one program of a dense product computes: rows x columns, some channels at a time."""

    rows: int
    columns: int
    """Divide 128: they share a scale."""
    warps: int
    stages: int
    """Steps that are in flight or in use at once."""

    @classmethod
    def of(cls, *, rows: int, columns: int, shares: int = 1) -> Tile:
        """Choose for so many rows, columns and shares of the channels (benchmarks/tune.py)."""
        height = 16
        while height < min(rows, 64):
            height *= 2
        width = _width(64 if height == 16 else 128, -(-rows // height) * shares, columns)
        return cls(rows=height, columns=width, warps=4, stages=5 if height == 16 else 3)

    @staticmethod
    def shares(*, rows: int, columns: int, depth: int) -> int:
        """Return how many shares of the channels make programs enough, of 256 channels at least."""
        tiles = -(-rows // 64) * -(-columns // 64)
        shares = 1
        while shares < MOST_SHARES and tiles * shares < PROGRAMS and depth >= 512 * shares:
            shares *= 2
        return shares


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
        if rows > FEW_ROWS * experts:
            return cls(rows=64, columns=64, warps=4, stages=3)
        width = _width(64, min(rows, experts), columns)
        return cls(rows=_height(rows, experts), columns=width, warps=4, stages=4)

    @classmethod
    def of_down(
        cls, *, rows: int, experts: int, columns: int, depth: int, element_size: int
    ) -> ExpertTile:
        """Choose for so many rows of all experts, columns of the result and channels."""
        width = 128
        while width > 16 and width * depth * element_size > DOWN_BYTES:
            width //= 2
        if rows > FEW_ROWS * experts:
            tall = 128 if element_size == 1 else 64
            return cls(rows=tall, columns=max(16, width // 2), warps=tall // 16, stages=3)
        width = _width(width, min(rows, experts), columns)
        return cls(rows=_height(rows, experts), columns=width, warps=8, stages=1)


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
