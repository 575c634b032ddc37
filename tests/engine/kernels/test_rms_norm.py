"""The norms against their formulas in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels import rms_norm

EPS = 1e-6


def normal(*size: int, seed: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def naive(x: torch.Tensor) -> torch.Tensor:
    x = x.double()
    return x / (x.pow(2).mean(-1, keepdim=True) + EPS).sqrt()


@pytest.mark.parametrize("fused", [True, False])
@given(
    rows=st.integers(1, 9),
    width=st.integers(1, 70),
    scale=st.sampled_from([1e-4, 1.0, 1e4]),
    first=st.booleans(),
    seed=st.integers(0, 99),
)
def test_add_norm(fused: bool, rows: int, width: int, scale: float, first: bool, seed: int) -> None:
    residual, weight = scale * normal(width, rows, seed=seed).t(), normal(width, seed=seed + 1)
    before = residual.clone()
    update = None if first else normal(rows, width, seed=seed + 2)
    added = residual if update is None else residual + update
    if fused:
        total, y = rms_norm.add_norm_fused(residual, update, 1 + weight, EPS)
    else:
        total, y = rms_norm.add_norm_reference(residual, update, weight, EPS)
    assert torch.equal(total, added)
    assert torch.equal(residual, before)
    want = naive(added) * (1 + weight.double())
    torch.testing.assert_close(y.double(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_bfloat16_is_cast_at_the_very_end(fused: bool) -> None:
    x = normal(40, 64, seed=1).bfloat16()
    weight = 1e-3 * normal(64, seed=2)
    y = rms_norm.head_norm(x.view(40, 4, 16), weight[:16], 1 + weight[:16], EPS, fused)
    want = naive(x.view(40, 4, 16)) * (1 + weight[:16].double())
    assert y.dtype == torch.bfloat16
    # One rounding: half a unit in the last of 8 bits.
    torch.testing.assert_close(y.double(), want, atol=0.0, rtol=2**-8)


@pytest.mark.parametrize("norm", [rms_norm.gated_norm_fused, rms_norm.gated_norm_reference])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gated_norm(norm: object, dtype: torch.dtype) -> None:
    assert callable(norm)
    x, gate = normal(9, 3, 16, seed=3), (4 * normal(9, 3, 32, seed=4))[..., ::2].to(dtype)
    weight = normal(16, seed=5)
    y = norm(x, gate, weight, EPS)
    wide = gate.double()
    want = naive(x) * weight.double() * wide / (1 + (-wide).exp())
    assert y.dtype == dtype
    torch.testing.assert_close(
        y.double(), want, atol=1e-6, rtol=1e-5 if dtype == torch.float32 else 2**-8
    )
