"""The kernels under Triton's interpreter, on operands that are quantised already."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels import block_scaled_product as product
from upcurve.engine.kernels.block_scaled import quantize_blocks, quantize_rows
from upcurve.engine.kernels.tiles import Tile
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

needs_interpreter = pytest.mark.skipif(
    not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"
)
SMALL = Tile(rows=16, columns=16, depth=128, warps=4, stages=2)
COUNTS = [
    [1],
    [20],
    [0, 1],
    [1, 0, 1],
    [3, 17, 0, 1],
    [0, 0, 33, 0],
    [16, 16],
    [0, 0, 0, 2],
    [1, 0, 0, 0, 0, 1, 0],
    [0, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that is allocated and not written holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def among_nan(x: torch.Tensor) -> torch.Tensor:
    """The same rows between NaN."""
    wide = torch.full((len(x) + 2, x.shape[1] + 16), torch.nan).to(x.dtype)
    wide.view(torch.uint8)[1:-1, : x.shape[1] * x.element_size()] = x.view(torch.uint8)
    return wide[1:-1, : x.shape[1]]


def exact(values: torch.Tensor, scale: torch.Tensor, rows: int) -> torch.Tensor:
    scales = scale.double().repeat_interleave(rows, -2).repeat_interleave(128, -1)
    return values.double() * scales[..., : values.shape[-2], : values.shape[-1]]


class Operands:
    def __init__(self, counts: list[int], columns: int, depth: int) -> None:
        rows = normal(sum(counts), depth)
        weight = normal(len(counts), columns, depth, seed=1)
        self.rows, self.row_scale = quantize_rows(rows)
        self.weight, self.scale = quantize_blocks(weight)
        # So that a scale that is taken from another place shows.
        self.scale *= torch.arange(1, self.scale.numel() + 1).view(self.scale.shape)
        self.ends = torch.tensor(counts).cumsum(0).int()
        self.group = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))

    def multiply(self, dtype: torch.dtype = torch.float32, tile: Tile = SMALL) -> torch.Tensor:
        rows = among_nan(self.rows)
        scales = (self.row_scale.t().contiguous().t(), self.weight, self.scale)
        return product.grouped(rows, *scales, self.ends, dtype, tile=tile)

    def expected(self) -> torch.Tensor:
        rows, weight = exact(self.rows, self.row_scale, 1), exact(self.weight, self.scale, 128)
        return torch.einsum("rk,rnk->rn", rows, weight[self.group])


def close(out: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> bool:
    error = (out.double() - expected).abs()
    return bool((error <= tolerance * (expected.abs() + expected.std(correction=0))).all())


@needs_interpreter
@pytest.mark.parametrize("counts", COUNTS)
def test_rows_of_any_groups(counts: list[int]) -> None:
    operands = Operands(counts, 20, 130)
    assert close(operands.multiply(), operands.expected())


@needs_interpreter
@pytest.mark.parametrize(("columns", "depth"), [(1, 1), (16, 128), (130, 256), (150, 300), (33, 7)])
@pytest.mark.parametrize(("tile_rows", "tile_columns"), [(16, 16), (16, 128), (64, 32)])
def test_edges(columns: int, depth: int, tile_rows: int, tile_columns: int) -> None:
    operands = Operands([1, 70], columns, depth)
    tile = Tile(rows=tile_rows, columns=tile_columns, depth=128, warps=4, stages=2)
    assert close(operands.multiply(tile=tile), operands.expected())


@needs_interpreter
def test_the_tile_chosen_from_the_shapes() -> None:
    operands = Operands([2, 0, 40], 40, 256)
    out = product.grouped(
        operands.rows,
        operands.row_scale,
        operands.weight,
        operands.scale,
        operands.ends,
        torch.float32,
    )
    assert close(out, operands.expected())


@needs_interpreter
@pytest.mark.parametrize("rows", [1, 16, 21])
def test_linear(rows: int) -> None:
    operands = Operands([rows], 150, 300)
    weight, scale = operands.weight[0], operands.scale[0]
    out = product.linear(operands.rows, operands.row_scale, weight, scale, torch.float32)
    assert close(out, operands.expected())


@needs_interpreter
def test_results_are_rounded_once() -> None:
    operands = Operands([2, 3], 16, 256)
    assert close(operands.multiply(torch.float16), operands.expected(), 1e-3)
    assert operands.multiply(torch.bfloat16).dtype == torch.bfloat16


@needs_interpreter
def test_dead_experts_give_numbers() -> None:
    operands = Operands([2, 2], 16, 256)
    operands.scale[1] = 1e-23
    out = operands.multiply()
    assert out.isfinite().all()
    assert close(out[:2], operands.expected()[:2])
    assert out[2:].abs().max() < 1e-18


@needs_interpreter
def test_rows_of_no_group_are_not_read() -> None:
    operands = Operands([2, 2], 16, 130)
    operands.row_scale[2:] = torch.nan
    operands.ends[1] = 2
    out = operands.multiply()
    assert close(out[:2], operands.expected()[:2])
    assert out[2:].isnan().all()


@needs_interpreter
@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("tile_rows", [16, 64])
def test_plain_weights(counts: list[int], tile_rows: int) -> None:
    rows, weight = normal(sum(counts), 70), normal(len(counts), 20, 70, seed=1)
    group = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    tile = Tile(rows=tile_rows, columns=16, depth=32, warps=4, stages=2)
    ends = torch.tensor(counts).cumsum(0).int()
    out = product.grouped_plain(among_nan(rows), weight, ends, tile=tile)
    expected = torch.einsum("rk,rnk->rn", rows.double(), weight[group].double())
    assert close(out, expected)
    assert out.dtype == rows.dtype


@needs_interpreter
def test_no_rows() -> None:
    empty, weight = normal(0, 130), normal(2, 3, 130)
    quantized, scales = quantize_rows(empty)
    weights, weight_scales = quantize_blocks(weight)
    ends = torch.zeros(2, dtype=torch.int32)
    assert product.grouped_plain(empty, weight, ends).shape == (0, 3)
    assert product.linear(quantized, scales, weights[0], weight_scales[0], torch.float16).shape == (
        0,
        3,
    )


@given(
    rows=st.integers(1, 80_000),
    groups=st.integers(1, 600),
    columns=st.integers(1, 20_000),
    depth=st.integers(1, 9_000),
    element_size=st.sampled_from([1, 2, 4]),
)
def test_tiles_fit_the_devices(
    rows: int, groups: int, columns: int, depth: int, element_size: int
) -> None:
    tile = Tile.of(
        rows=rows, groups=groups, columns=columns, depth=depth, element_size=element_size
    )
    assert tile.rows in {16, 32, 64, 128}
    assert 128 % tile.columns == 0
    assert tile.columns >= 16
    assert tile.depth * element_size == 128
    # 160 KiB a multiprocessor on gfx950, 227 on sm_90.
    assert tile.stages * (tile.rows + tile.columns) * 128 <= 112 * 1024
    # float32 sums, and those of one step, in 255 registers of each of 32 or 64 lanes.
    assert 2 * tile.rows * tile.columns <= 160 * 32 * tile.warps


@pytest.mark.parametrize(
    ("tokens", "rows"), [(1, 16), (16, 16), (64, 16), (512, 32), (2048, 128), (8192, 128)]
)
def test_tiles_of_experts_grow_with_their_rows(tokens: int, rows: int) -> None:
    tile = Tile.of(rows=9 * tokens, groups=257, columns=1024, depth=2048, element_size=1)
    assert tile.rows == rows


@pytest.mark.parametrize(("rows", "columns"), [(1, 16), (64, 16), (2048, 128)])
def test_few_rows_are_multiplied_by_narrow_tiles(rows: int, columns: int) -> None:
    tile = Tile.of(rows=rows, groups=1, columns=2048, depth=4096, element_size=1)
    assert tile.columns == columns


@given(counts=st.lists(st.integers(0, 300), min_size=1, max_size=40))
def test_there_is_a_place_for_every_tile_and_few_without(counts: list[int]) -> None:
    rows, groups = sum(counts), len(counts)
    for tile_rows in (16, 128):
        places, by_row = product.places_of(rows, groups, tile_rows, grouped=True)
        needed = sum(-(-count // tile_rows) for count in counts)
        assert needed <= places <= -(-rows // tile_rows) + min(rows, groups)
        assert by_row == (rows <= groups)
