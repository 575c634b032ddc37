"""The dense product under Triton's interpreter, on operands that are quantised already."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.kernels.operands import among_nan, exact, normal
from upcurve.engine.kernels import block_scaled_product as product
from upcurve.engine.kernels.block_scaled import quantize_blocks, quantize_rows
from upcurve.engine.kernels.tiles import Tile
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

pytestmark = pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter")
TILES = [Tile(rows, columns, 4, 2) for rows, columns in ((16, 16), (32, 128), (64, 32), (128, 64))]
"""Both ways round: the weight is the left side below 64 rows."""


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that is allocated and not written holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


class Operands:
    def __init__(self, count: int, columns: int, depth: int) -> None:
        self.rows, self.row_scale = quantize_rows(normal(count, depth))
        self.weight, self.scale = quantize_blocks(normal(columns, depth, seed=1))
        # So that a scale that is taken from another place shows.
        self.scale *= torch.arange(1, self.scale.numel() + 1).view(self.scale.shape)

    def all(self) -> tuple[torch.Tensor, ...]:
        """As launches get them: rows with a stride, scales column by column."""
        by_column = self.row_scale.t().contiguous().t()
        return among_nan(self.rows), by_column, self.weight, self.scale

    def expected(self, begin: int = 0, end: int | None = None) -> torch.Tensor:
        rows, weight = exact(self.rows, self.row_scale, 1), exact(self.weight, self.scale, 128)
        return rows[:, begin:end] @ weight[:, begin:end].t()


def close(out: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> bool:
    error = (out.double() - expected).abs()
    return bool((error <= tolerance * (expected.abs() + expected.std(correction=0))).all())


@given(
    count=st.integers(1, 40),
    columns=st.integers(1, 300),
    depth=st.integers(1, 300),
    tile=st.sampled_from([None, *TILES]),
)
def test_any_sizes(count: int, columns: int, depth: int, tile: Tile | None) -> None:
    operands = Operands(count, columns, depth)
    out = product.linear(*operands.all(), torch.float32, tile=tile)
    assert close(out, operands.expected())


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("count", "columns", "depth"), [(1, 256, 512), (70, 130, 256), (99, 1, 1)])
def test_edges(count: int, columns: int, depth: int, tile: Tile) -> None:
    operands = Operands(count, columns, depth)
    assert close(product.linear(*operands.all(), torch.float32, tile=tile), operands.expected())


@settings(max_examples=25)
@given(shares=st.integers(1, 8), depth=st.integers(1, 1100), tile=st.sampled_from(TILES))
def test_shares_are_products_of_some_channels(shares: int, depth: int, tile: Tile) -> None:
    operands = Operands(3, 40, depth)
    out = product.linear_shares(*operands.all(), shares=shares, tile=tile)
    assert out.shape == (3, shares, 40)
    assert out.dtype == torch.float32
    assert out.stride(2) == 1
    assert close(out.double().sum(1), operands.expected())
    blocks = (depth + 127) // 128
    size = 128 * ((blocks + shares - 1) // shares)
    for share in range(shares):
        part = operands.expected(share * size, (share + 1) * size)
        assert close(out[:, share], part)


@pytest.mark.parametrize(("dtype", "step"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
def test_results_are_rounded_once(dtype: torch.dtype, step: float) -> None:
    operands = Operands(5, 16, 256)
    out = product.linear(*operands.all(), dtype)
    assert out.dtype == dtype
    expected = operands.expected()
    # Half a step; what cancels has the error of the float32 sum.
    assert ((out.double() - expected).abs() <= step * expected.abs() + 1e-4).all()


def test_results_are_the_same_bit_by_bit() -> None:
    operands = Operands(20, 40, 600)
    first, second = (product.linear_shares(*operands.all(), shares=4) for _ in range(2))
    assert torch.equal(first, second)


def test_dead_blocks_give_numbers() -> None:
    operands = Operands(4, 200, 256)
    operands.scale[1] = 1e-23
    out = product.linear(*operands.all(), torch.float32)
    assert out.isfinite().all()
    assert close(out[:, :128], operands.expected()[:, :128])
    assert out[:, 128:].abs().max() < 1e-16


def test_no_rows() -> None:
    operands = Operands(0, 3, 130)
    assert product.linear(*operands.all(), torch.float16).shape == (0, 3)
    assert product.linear_shares(*operands.all(), shares=2).shape == (0, 2, 3)
