"""Weight matrices in FP8 against float64, at sizes that fill their blocks and at others."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels import block_scaled
from upcurve.engine.kernels.block_scaled import FP8
from upcurve.engine.model.matrix import PIECE, Matrix, Rows, pieces

CPU = torch.device("cpu")
LARGEST = 448.0
"""Of float8_e4m3fn, which has 3 bits of mantissa."""


def exact(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Dequantise in float64: each element by the scale at its row and column divided by 128."""
    row, column = (torch.arange(size) // 128 for size in weight.shape[-2:])
    return weight.double() * scale.double()[..., row, :][..., column]


def draw(size: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(size, generator=generator)
    # Rows of very different size, as trained weights have them.
    return values * torch.exp(torch.randn((*size[:-1], 1), generator=generator))


def filled(parts: tuple[int, ...], width: int, experts: int | None, seed: int) -> tuple:
    matrix = Matrix.empty(parts, width, experts=experts, device=CPU, dtype=FP8)
    size = (sum(parts), width) if experts is None else (experts, sum(parts), width)
    values = draw(size, seed)
    for start, stop in matrix.bounds():
        rows = Rows(matrix, start, stop)
        assert rows.shape == values[..., start:stop, :].shape
        rows.fill(values[..., start:stop, :])
    return matrix, values


sizes = st.one_of(st.integers(1, 300), st.sampled_from([64, 127, 128, 129, 256]))


@given(
    parts=st.lists(sizes, min_size=1, max_size=4).map(tuple),
    width=sizes,
    experts=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 99),
)
def test_what_is_filled_is_near_its_values(
    parts: tuple[int, ...], width: int, experts: int | None, seed: int
) -> None:
    matrix, values = filled(parts, width, experts, seed)
    assert matrix.weight.dtype == FP8
    assert matrix.scale.dtype == torch.float32
    got = exact(matrix.weight, matrix.scale)
    # Half a step of 3 bits, twice where parts share a block; below the normal numbers half of the
    # smallest step, 2**-9, in units of the block's scale.
    shared = any(part % 128 for part in parts[:-1])
    steps = 4 if shared else 1
    unit = exact(torch.ones_like(matrix.weight, dtype=torch.float32), matrix.scale)
    bound = steps * (values.double().abs() * 2**-4 + unit * 2**-10) * (1 + 1e-6)
    assert ((got - values).abs() <= bound).all()
    # Each block is well filled: its largest element is near the largest number.
    if not shared:
        tops = (matrix.weight.float().abs() == LARGEST).sum()
        assert tops >= matrix.scale.numel()


@given(
    parts=st.lists(sizes, min_size=1, max_size=4).map(tuple),
    width=sizes,
    tokens=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_products_of_parts(parts: tuple[int, ...], width: int, tokens: int, seed: int) -> None:
    matrix, _ = filled(parts, width, None, seed)
    x = draw((tokens, width), seed + 1)
    quantized, scale = block_scaled.quantize_rows(x)
    column = torch.arange(width) // 128
    rounded = quantized.double() * scale.double()[:, column]
    want = rounded @ exact(matrix.weight, matrix.scale).t()
    size = rounded.abs() @ exact(matrix.weight, matrix.scale).abs().t()
    for at_once in (True, False):
        got = matrix.multiply_parts(x, at_once=at_once)
        assert tuple(each.shape[1] for each in got) == parts
        assert ((torch.cat(got, dim=1) - want).abs() <= 1e-5 * size + 1e-12).all()


def test_a_plain_matrix() -> None:
    matrix = Matrix.empty((3, 4), 5, experts=2, device=CPU, dtype=torch.float32)
    matrix.weight.copy_(draw((2, 7, 5), 1))
    assert matrix.scale is None
    x = draw((6, 5), 2)
    for expert in range(2):
        one = matrix[expert]
        assert one.weight.data_ptr() == matrix.weight[expert].data_ptr()
        want = x @ matrix.weight[expert].t()
        torch.testing.assert_close(one.multiply(x), want)
        for at_once in (True, False):
            parts = one.multiply_parts(x, at_once=at_once)
            torch.testing.assert_close(torch.cat(parts, dim=1), want)


@pytest.mark.parametrize("width", [128, 200])
def test_aligned_parts_are_stored_bit_by_bit(width: int) -> None:
    source, _ = filled((256,), width, None, 3)
    matrix = Matrix.empty((128, 256, 70), width, device=CPU, dtype=FP8)
    Rows(matrix, 128, 384).fill_quantized(source.weight, source.scale)
    assert torch.equal(matrix.weight[128:384].float(), source.weight.float())
    assert torch.equal(matrix.scale[1:3], source.scale)


@given(first=st.integers(1, 200), seed=st.integers(0, 20))
def test_the_order_of_parts_that_share_a_block(first: int, seed: int) -> None:
    one, values = filled((first, 100), 130, None, seed)
    other = Matrix.empty((first, 100), 130, device=CPU, dtype=FP8)
    for start, stop in reversed(other.bounds()):
        Rows(other, start, stop).fill(values[start:stop])
    # A shared scale ends as the same: that of the largest value of both.
    torch.testing.assert_close(other.scale, one.scale, rtol=0.07, atol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-23, 1e-38, 1e-42])
@pytest.mark.parametrize("parts", [(128, 128), (20, 30)])
def test_dead_blocks_give_no_nan(scale: float, parts: tuple[int, ...]) -> None:
    matrix = Matrix.empty(parts, 140, device=CPU, dtype=FP8)
    for start, stop in matrix.bounds():
        rows = Rows(matrix, start, stop)
        weight = draw(tuple(rows.shape), 4).to(FP8)
        rows.fill_quantized(weight, torch.full(rows.scale_shape, scale))
    assert exact(matrix.weight, matrix.scale).isfinite().all()
    out = matrix.multiply(draw((3, 140), 5))
    assert out.isfinite().all()
    assert out.abs().max() <= 1e5 * scale


def test_values_that_are_dead_are_quantised() -> None:
    values = draw((256, 128), 6)
    values[:128] *= 1e-23
    values[128:] = 0
    matrix = Matrix.empty((256,), 128, device=CPU, dtype=FP8)
    Rows(matrix, 0, 256).fill(values)
    got = exact(matrix.weight, matrix.scale)
    assert got.isfinite().all()
    assert (got[128:] == 0).all()
    torch.testing.assert_close(got[:128], values[:128].double(), rtol=0.07, atol=1e-24)


def test_pieces_bound_what_is_converted_at_once() -> None:
    shape = torch.Size([256, 1024, 2048])
    slices = pieces(shape)
    assert [index for each in slices for index in range(256)[each]] == list(range(256))
    assert all(len(range(256)[each]) * shape[1:].numel() <= PIECE for each in slices)
    assert pieces(torch.Size([3, 2 * PIECE, 1])) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert pieces(torch.Size([2 * PIECE, 4])) == [slice(None)]
