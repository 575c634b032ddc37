"""The rules that divide products among programs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels.tiles import MOST_SHARES, PROGRAMS, ExpertTile, Tile

LDS = 160 * 1024
"""Bytes of a multiprocessor of gfx950; sm_90 has more."""
REGISTERS = 255 * 32
"""Of a warp, at most."""


@given(
    rows=st.integers(1, 80_000),
    columns=st.integers(1, 20_000),
    shares=st.sampled_from([1, 2, 4, 8]),
)
def test_dense_tiles_fit_the_chips(rows: int, columns: int, shares: int) -> None:
    tile = Tile.of(rows=rows, columns=columns, shares=shares)
    assert tile.rows in {16, 32, 64}
    assert 128 % tile.columns == 0
    assert tile.columns >= 16
    assert tile.stages * (tile.rows + tile.columns) * 128 <= LDS // 2
    # float32 sums, and those of one step.
    assert 2 * tile.rows * tile.columns <= REGISTERS * tile.warps


@given(
    rows=st.integers(1, 80_000),
    experts=st.integers(1, 513),
    columns=st.integers(1, 8192),
    depth=st.integers(16, 2048),
    element_size=st.sampled_from([1, 2]),
)
def test_tiles_of_experts_fit_the_chips(
    rows: int, experts: int, columns: int, depth: int, element_size: int
) -> None:
    first = ExpertTile.of_gate_up(rows=rows, experts=experts, columns=columns)
    second = ExpertTile.of_down(
        rows=rows, experts=experts, columns=columns, depth=depth, element_size=element_size
    )
    for tile in (first, second):
        assert tile.rows in {16, 32, 64, 128}
        assert 128 % tile.columns == 0
        assert tile.columns >= 16
    assert first.stages * (first.rows + 2 * first.columns) * 128 <= LDS
    assert 4 * first.rows * first.columns <= REGISTERS * first.warps


@pytest.mark.parametrize("rows", [1, 16, 64, 300])
@pytest.mark.parametrize("columns", [2048, 9216, 12288])
def test_every_multiprocessor_has_a_tile(rows: int, columns: int) -> None:
    tile = Tile.of(rows=rows, columns=columns)
    assert -(-rows // tile.rows) * -(-columns // tile.columns) >= PROGRAMS


@given(rows=st.integers(1, 9000), columns=st.integers(1, 20_000), depth=st.integers(1, 9000))
def test_shares_are_as_many_as_are_of_use(rows: int, columns: int, depth: int) -> None:
    shares = Tile.shares(rows=rows, columns=columns, depth=depth)
    assert shares in {1, 2, 4, MOST_SHARES}
    assert shares == 1 or depth >= 256 * shares
    assert shares == 1 or -(-rows // 64) * -(-columns // 64) * (shares // 2) < PROGRAMS


def test_shares_of_the_output_projection() -> None:
    assert Tile.shares(rows=1, columns=2048, depth=4096) == 4
    assert Tile.shares(rows=8192, columns=2048, depth=4096) == 1
