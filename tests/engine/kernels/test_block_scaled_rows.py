"""The quantising kernel under Triton's interpreter, against torch's rounding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.kernels.operands import FP8, among_nan, normal
from upcurve.engine.kernels.block_scaled import quantize_rows
from upcurve.engine.kernels.block_scaled_rows import quantize
from upcurve.engine.kernels.quantized import GRAIN
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

pytestmark = pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter")


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that is allocated and not written holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@given(
    count=st.integers(1, 9),
    depth=st.integers(1, 400),
    exponent=st.integers(-30, 30),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_any_rows(count: int, depth: int, exponent: int, dtype: torch.dtype) -> None:
    x = (normal(count, depth) * 10.0**exponent).to(dtype)
    rows, (values, scale) = quantize(among_nan(x)), quantize_rows(x)
    assert torch.equal(rows.values.float(), values.float())
    assert torch.equal(rows.scale, scale)


def test_nan_stays_in_its_row() -> None:
    x = normal(2, 256)
    x[0, 3] = torch.nan
    rows = quantize(x)
    assert rows.values[0].isnan().any()
    assert torch.equal(rows.values[1].float(), quantize_rows(x)[0][1].float())


@pytest.mark.parametrize("value", [0.0, 1e-44, 1e-36])
def test_nothing_has_a_scale_that_loses_bits(value: float) -> None:
    rows = quantize(torch.full((2, 200), value))
    assert (rows.scale == 1).all()
    assert (rows.values.float() == 0).all()


@pytest.mark.parametrize("count", [0, 1, 8, 9])
def test_a_column_of_scales_is_contiguous_and_its_length_a_whole_grain(count: int) -> None:
    rows = quantize(normal(count, 130))
    assert rows.values.dtype == FP8
    assert rows.values.shape == (count, 130)
    assert rows.scale.shape == (count, 2)
    assert rows.scale.stride() == (1, max(1, -(-count // GRAIN) * GRAIN))
