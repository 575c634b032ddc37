"""Quantisation in blocks, and products with quantised weights against float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.kernels.operands import exact, normal
from upcurve.engine.kernels import block_scaled
from upcurve.engine.kernels.block_scaled import (
    FP8,
    HIGHEST,
    LIBRARY_ROWS,
    dequantize_blocks,
    grouped_reference,
    linear,
    linear_shares,
    quantize_blocks,
    quantize_rows,
)
from upcurve.engine.kernels.quantized import GRAIN, QuantizedRows
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

DEAD = 1e-23
HALF_STEP = 1 / 16
"""Of three bits of mantissa, relative."""
LEAST_STEP = 2.0**-9
"""Between float8_e4m3fn values below 2 ** -6."""
sizes = st.integers(1, 300)
needs_interpreter = pytest.mark.skipif(
    not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"
)


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
        step = exact(torch.ones_like(values), scale, rows) * LEAST_STEP
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
    assert torch.equal(whole.double(), exact(quantized, scale, 128).float().double())
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
    out = grouped_reference(rows, weight, scale, torch.tensor([1, 3], dtype=torch.int32))
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
    x = exact(*quantize_rows(rows), 1)
    expected = torch.stack([exact(weight, scale, 128)[g] @ x[i] for i, g in enumerate(group)])
    bound = 1e-6 * width**0.5 * (x.abs().amax(1, keepdim=True) + 1) * 5
    assert ((grouped_reference(rows, weight, scale, ends) - expected).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_linear_is_a_product_of_one_group(dtype: torch.dtype) -> None:
    x = normal(4, 200).to(dtype)
    weight, scale = quantize_blocks(normal(1, 130, 200, seed=1))
    ends = torch.tensor([4], dtype=torch.int32)
    out = linear(x, weight[0], scale[0])
    assert out.dtype == dtype
    assert torch.equal(out, grouped_reference(x, weight, scale, ends))


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
    grouped_reference(normal(3, 8), weight, scale, torch.tensor([0, 2, 2, 2, 3], dtype=torch.int32))
    assert seen == [(8, 8), (8, 8)]


def test_no_rows_give_no_results() -> None:
    weight, scale = quantize_blocks(normal(2, 8, 8))
    assert linear(normal(0, 8), weight[0], scale[0]).shape == (0, 8)
    assert linear_shares(normal(0, 8), weight[0], scale[0]).shape == (0, 8)
    ends = torch.zeros(2, dtype=torch.int32)
    assert grouped_reference(normal(0, 8), weight, scale, ends).shape == (0, 8)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dispatch as on a GPU; the kernels are interpreted."""
    monkeypatch.setattr(block_scaled, "runs_kernels", lambda device: True)


@needs_interpreter
@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("multiply", [linear, linear_shares])
def test_one_row_is_not_quantised(multiply: Callable[..., torch.Tensor]) -> None:
    x, (weight, scale) = normal(1, 1030), quantize_blocks(normal(130, 1030, seed=1))
    expected = x.double() @ exact(weight, scale, 128).t()
    torch.testing.assert_close(multiply(x, weight, scale).double(), expected, atol=1e-4, rtol=1e-5)


@needs_interpreter
@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("rows", [2, 17, LIBRARY_ROWS])
@pytest.mark.parametrize("known", [True, False])
def test_a_few_rows_are_quantised_once(rows: int, known: bool) -> None:
    x, (weight, scale) = normal(rows, 1030), quantize_blocks(normal(130, 1030, seed=1))
    values, its_scale = quantize_rows(x)
    expected = exact(values, its_scale, 1) @ exact(weight, scale, 128).t()
    quantized = QuantizedRows(values, its_scale) if known else None
    # Where they are known in FP8, nobody asks what they were.
    source = torch.full_like(x, torch.nan) if known else x
    out = linear(source, weight, scale, quantized)
    torch.testing.assert_close(out.double(), expected, atol=1e-4, rtol=1e-5)
    shares = linear_shares(source, weight, scale, quantized)
    assert shares.dtype == torch.float32
    assert shares.shape == (rows, 4, 130)
    torch.testing.assert_close(shares.double().sum(1), expected, atol=1e-4, rtol=1e-5)


@needs_interpreter
@pytest.mark.usefixtures("on_gpu")
def test_shares_are_a_product_where_there_is_one_share() -> None:
    x, (weight, scale) = normal(3, 500), quantize_blocks(normal(10, 500, seed=1))
    assert torch.equal(linear_shares(x, weight, scale), linear(x, weight, scale))


def scaled_product(a, b, scale_a, recipe_a, scale_b, recipe_b, *, output_dtype) -> torch.Tensor:
    """What torch.nn.functional.scaled_mm documents, and what cuBLAS asks for."""
    assert recipe_a == F.ScalingType.BlockWise1x128
    assert recipe_b == F.ScalingType.BlockWise128x128
    assert len(a) % GRAIN == 0
    assert scale_a.stride(0) == scale_b.stride(0) == 1
    product = exact(a, scale_a, 1) @ exact(b.t(), scale_b.t(), 128).t()
    return product.to(output_dtype)


@needs_interpreter
@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("rows", [LIBRARY_ROWS - 1, LIBRARY_ROWS, LIBRARY_ROWS + 1])
def test_many_rows_go_to_the_library_of_a_hopper(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(block_scaled, "compute_capability", lambda device: (9, 0))
    monkeypatch.setattr(
        F, "scaled_mm", lambda *given, **how: calls.append(given) or scaled_product(*given, **how)
    )
    x = normal(rows, 512).bfloat16()
    weight, scale = quantize_blocks(normal(256, 512, seed=1))
    expected = exact(*quantize_rows(x), 1) @ exact(weight, scale, 128).t()
    out = linear(x, weight, scale)
    assert out.dtype == torch.bfloat16
    assert out.shape == expected.shape
    torch.testing.assert_close(out.double(), expected, atol=1e-3, rtol=2**-8)
    assert len(calls) == (rows >= LIBRARY_ROWS)


@pytest.mark.parametrize(
    ("capability", "dtype", "shape", "has"),
    [
        ((9, 0), torch.bfloat16, (12288, 2048), True),
        ((9, 0), torch.bfloat16, (2048, 4096), True),
        ((9, 0), torch.float16, (2048, 4096), False),
        ((9, 0), torch.bfloat16, (2048, 640), False),
        ((9, 0), torch.bfloat16, (2000, 4096), False),
        ((10, 0), torch.bfloat16, (2048, 4096), False),
        ((0, 0), torch.bfloat16, (2048, 4096), False),
    ],
)
def test_what_the_library_has(
    capability: tuple[int, int],
    dtype: torch.dtype,
    shape: tuple[int, int],
    has: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(block_scaled, "compute_capability", lambda device: capability)
    x, weight = torch.empty(1, shape[1], dtype=dtype), torch.empty(shape, dtype=FP8)
    assert block_scaled._in_library(x, weight) is has
