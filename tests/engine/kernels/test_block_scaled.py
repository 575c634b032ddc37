"""Quantisation in blocks, and products with quantised weights against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels import block_scaled
from upcurve.engine.kernels.block_scaled import (
    FP8,
    HIGHEST,
    dequantize_blocks,
    experts,
    grouped,
    linear,
    quantize_blocks,
    quantize_rows,
)

DEAD = 1e-23
HALF_STEP = 1 / 16
"""Of three bits of mantissa, relative."""
LEAST_STEP = 2.0**-9
"""Between float8_e4m3fn values below 2 ** -6."""
sizes = st.integers(1, 300)


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def elementwise(scale: torch.Tensor, rows: int, height: int, width: int) -> torch.Tensor:
    """The scale of each element, by its index."""
    down, across = torch.arange(height) // rows, torch.arange(width) // 128
    return scale[..., down[:, None], across[None, :]]


def exact(weight: torch.Tensor, scale: torch.Tensor, rows: int = 128) -> torch.Tensor:
    """In float64."""
    return weight.double() * elementwise(scale.double(), rows, *weight.shape[-2:])


@given(height=sizes, width=sizes, exponent=st.integers(-30, 30), seed=st.integers(0, 99))
def test_values_come_back_within_half_a_step(
    height: int, width: int, exponent: int, seed: int
) -> None:
    values = normal(height, width, seed=seed) * 10.0**exponent
    for rows, quantize in ((1, quantize_rows), (128, quantize_blocks)):
        quantized, scale = quantize(values)
        assert quantized.dtype == FP8
        assert scale.dtype == torch.float32
        assert quantized.shape == values.shape
        assert scale.shape == (-(-height // rows), -(-width // 128))
        step = elementwise(scale, rows, height, width) * LEAST_STEP
        allowed = torch.maximum(values.abs() * HALF_STEP, step / 2) * 1.0001
        assert ((exact(quantized, scale, rows) - values).abs() <= allowed).all()


@pytest.mark.parametrize("quantize", [quantize_rows, quantize_blocks])
@given(seed=st.integers(0, 9999), exponent=st.integers(-30, 30))
def test_the_largest_of_a_block_is_the_highest_value(quantize, seed: int, exponent: int) -> None:
    values = normal(1, 256, seed=seed) * 10.0**exponent
    quantized, scale = quantize(values)
    assert (quantized.float().view(2, 128).abs().amax(1) == HIGHEST).all()
    assert torch.allclose(scale.flatten() * HIGHEST, values.view(2, 128).abs().amax(1), atol=0)


@pytest.mark.parametrize("quantize", [quantize_rows, quantize_blocks])
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-44, 1e-36])
def test_nothing_has_a_scale_that_loses_bits(quantize, value: float) -> None:
    quantized, scale = quantize(torch.full((2, 130), value))
    assert (scale == 1).all()
    assert (quantized.float() == 0).all()


def test_nan_stays_nan_in_its_row() -> None:
    x = normal(2, 256)
    x[0, 3] = torch.nan
    out = linear(x, *quantize_blocks(normal(5, 256)))
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


@pytest.mark.parametrize("shape", [(200, 130), (3, 200, 130), (2, 2, 129, 5), (2, 1100, 3), (0, 4)])
def test_each_matrix_of_a_stack_is_quantised_by_itself(shape: tuple[int, ...]) -> None:
    weight = normal(*shape)
    quantized, scale = quantize_blocks(weight)
    whole = dequantize_blocks(quantized, scale, torch.float32)
    assert torch.equal(whole.double(), exact(quantized, scale).float().double())
    for index in torch.cartesian_prod(*map(torch.arange, shape[:-2])) if len(shape) > 2 else ():
        index = tuple(index.reshape(-1).tolist())
        one, its = quantize_blocks(weight[index].clone())
        assert torch.equal(quantized[index].float(), one.float())
        assert torch.equal(scale[index], its)


def test_views_in_another_order_are_quantised() -> None:
    weight = normal(150, 140)
    quantized, scale = quantize_blocks(weight.t())
    expected, its = quantize_blocks(weight.t().contiguous())
    assert torch.equal(quantized.float(), expected.float())
    assert torch.equal(scale, its)
    assert quantized.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dead_experts_are_zero_or_tiny(dtype: torch.dtype) -> None:
    weight, _ = quantize_blocks(normal(2, 130, 256))
    scale = torch.full((2, 2, 2), DEAD)
    back = dequantize_blocks(weight, scale, dtype)
    assert back.isfinite().all()
    assert back.abs().max() <= HIGHEST * DEAD * 1.01
    rows = normal(3, 256).to(dtype)
    out = grouped(rows, weight, scale, torch.tensor([1, 3], dtype=torch.int32))
    assert out.isfinite().all()
    assert out.abs().max() <= 1e-18


@given(count=st.integers(1, 9), height=sizes, width=sizes, groups=st.integers(1, 5), data=st.data())
def test_grouped_products_of_any_size(
    count: int, height: int, width: int, groups: int, data: st.DataObject
) -> None:
    rows = normal(count, width, seed=1)
    weight, scale = quantize_blocks(normal(groups, height, width, seed=2))
    group = sorted(data.draw(st.lists(st.integers(0, groups - 1), min_size=count, max_size=count)))
    ends = torch.searchsorted(torch.tensor(group), torch.arange(groups), right=True).int()
    x = exact(*quantize_rows(rows), rows=1)
    expected = torch.stack([exact(weight, scale)[g] @ x[i] for i, g in enumerate(group)])
    bound = 1e-6 * width**0.5 * (x.abs().amax(1, keepdim=True) + 1) * 5
    assert ((grouped(rows, weight, scale, ends) - expected).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_linear_is_a_product_of_one_group(dtype: torch.dtype) -> None:
    x = normal(4, 200).to(dtype)
    weight, scale = quantize_blocks(normal(1, 130, 200, seed=1))
    ends = torch.tensor([4], dtype=torch.int32)
    out = linear(x, weight[0], scale[0])
    assert out.dtype == dtype
    assert torch.equal(out, grouped(x, weight, scale, ends))


def test_products_are_near_those_that_are_not_quantised() -> None:
    x, weight = normal(16, 512), normal(256, 512, seed=1)
    out = linear(x, *quantize_blocks(weight))
    expected = x @ weight.t()
    # Two errors of up to 1/16, on average 1/38 each, that are independent.
    assert (out - expected).norm() / expected.norm() < 0.05


def test_only_experts_with_rows_are_dequantised(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, scale = quantize_blocks(normal(5, 8, 8))
    seen = []
    whole = block_scaled.dequantize_blocks

    def counted(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        seen.append(weight.shape)
        return whole(weight, scale, dtype)

    monkeypatch.setattr(block_scaled, "dequantize_blocks", counted)
    grouped(normal(3, 8), weight, scale, torch.tensor([0, 2, 2, 2, 3], dtype=torch.int32))
    assert seen == [(8, 8), (8, 8)]


def test_experts_are_two_grouped_products_about_a_gate() -> None:
    x, order = normal(3, 130), torch.tensor([2, 0, 1, 2, 1])
    ends, expert = torch.tensor([2, 2, 5], dtype=torch.int32), torch.tensor([0, 0, 2, 2, 2])
    gate_up, down = quantize_blocks(normal(3, 48, 130)), quantize_blocks(normal(3, 20, 24))
    rows = exact(*quantize_rows(x), rows=1)[order]
    gate, up = torch.einsum("rk,rnk->rn", rows, exact(*gate_up)[expert]).chunk(2, dim=-1)
    inner = exact(*quantize_rows(F.silu(gate) * up), rows=1)
    expected = torch.einsum("rk,rnk->rn", inner, exact(*down)[expert])
    out = experts(x, order, ends, *gate_up, *down)
    # Near the middle of two float8 values float32 and float64 may fall apart.
    assert (out - expected).norm() <= 1e-2 * expected.norm()


def test_no_rows_give_no_results() -> None:
    weight, scale = quantize_blocks(normal(2, 8, 8))
    assert linear(normal(0, 8), weight[0], scale[0]).shape == (0, 8)
    assert grouped(normal(0, 8), weight, scale, torch.zeros(2, dtype=torch.int32)).shape == (0, 8)
