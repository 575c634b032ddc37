"""The norms against their formulas in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.kernels.operands import among_nan, normal
from upcurve.engine.kernels import rms_norm, rms_norm_kernels
from upcurve.engine.kernels.block_scaled import quantize_rows
from upcurve.engine.kernels.quantized import QuantizedRows
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

EPS = 1e-6
ways = pytest.mark.parametrize(
    "kernels",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.skipif(
                not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"
            ),
        ),
    ],
)
"""In torch, as on the CPU, and as a kernel."""


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that is allocated and not written holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


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


def quantized_alike(quantized: QuantizedRows | None, rows: torch.Tensor) -> bool:
    """Whether it is what the rows give when they are quantised afterwards."""
    assert quantized is not None
    values, scale = quantize_rows(rows)
    return torch.equal(quantized.values.float(), values.float()) and torch.equal(
        quantized.scale, scale
    )


@ways
@settings(max_examples=40)
@given(
    tokens=st.integers(1, 4),
    width=st.one_of(st.integers(128, 700), st.sampled_from([128, 512, 1024])),
    parts=st.sampled_from([None, 0, 1, 3, 9]),
    mixed=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    spread=st.sampled_from([1e-4, 1.0, 1e4]),
)
def test_a_sum_is_normalised_and_quantised(
    kernels: bool,
    tokens: int,
    width: int,
    parts: int | None,
    mixed: bool,
    dtype: torch.dtype,
    spread: float,
) -> None:
    """Of no update (None), one of two dimensions (0), or parts, with or without weights."""
    residual, weight = (spread * normal(tokens, width)).to(dtype), normal(width, seed=1)
    total, size = residual.double(), residual.double().abs()
    update = mixing = None
    if parts == 0:
        update = among_nan(normal(tokens, width, seed=2).to(dtype))
        total, size = total + update.double(), size + update.double().abs()
    elif parts:
        update = among_nan(normal(tokens * parts, width, seed=2)).unflatten(0, (tokens, parts))
        mixing = normal(tokens, parts, seed=3) if mixed else None
        factor = torch.ones(tokens, parts) if mixing is None else mixing
        terms = factor.double().unsqueeze(-1) * update.double()
        total, size = total + terms.sum(1), size + terms.abs().sum(1)
    if kernels:
        normed = rms_norm.Normed(
            *rms_norm_kernels.add_norm(residual, update, weight, EPS, mixing, quantize=True)
        )
    else:
        normed = rms_norm.add_norm(residual, update, weight, EPS, mixing=mixing, quantize=True)
    step = 2**-8 if dtype == torch.bfloat16 else 1e-6
    assert normed.rows.dtype == normed.residual.dtype == dtype
    assert ((normed.residual.double() - total).abs() <= step * size).all()
    want = naive(normed.residual) * (1 + weight.double())
    torch.testing.assert_close(normed.rows.double(), want, atol=1e-5, rtol=step + 1e-5)
    assert quantized_alike(normed.quantized, normed.rows)


@ways
@pytest.mark.parametrize("quantize", [True, False])
@given(
    tokens=st.integers(0, 3),
    heads=st.integers(1, 9),
    width=st.sampled_from([128, 16, 24, 256]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_heads_are_normalised_gated_and_quantised(
    kernels: bool, quantize: bool, tokens: int, heads: int, width: int, dtype: torch.dtype
) -> None:
    quantize = quantize and width % 128 == 0
    x, weight = normal(tokens, heads, width), normal(width, seed=1)
    gate = among_nan((4 * normal(tokens, heads * width, seed=2)).to(dtype))
    gate = gate.unflatten(1, (heads, width))
    apply = rms_norm_kernels.gated_norm if kernels else rms_norm.gated_norm
    rows, quantized = apply(x, gate, weight, EPS, quantize=quantize)
    wide = gate.double()
    want = (naive(x) * weight.double() * wide / (1 + (-wide).exp())).flatten(1)
    assert rows.dtype == dtype
    rtol = 2**-8 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(rows.double(), want, atol=1e-6, rtol=rtol)
    if quantize and (width == 128 or not kernels):
        assert quantized_alike(quantized, rows)
    else:
        assert quantized is None


@pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter")
def test_a_device_that_runs_kernels_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rms_norm, "runs_kernels", lambda device: True)
    residual, x, weight = normal(2, 256), normal(2, 3, 256, seed=1), normal(256, seed=2)
    normed = rms_norm.add_norm(residual, None, weight, EPS, quantize=True)
    assert normed.residual is residual
    assert quantized_alike(normed.quantized, normed.rows)
    # Heads of more than one block are quantised by another kernel.
    rows, quantized = rms_norm.gated_norm(x, x, weight, EPS, quantize=True)
    assert quantized_alike(quantized, rows)


@ways
def test_no_tokens(kernels: bool) -> None:
    residual, weight = torch.empty(0, 256), normal(256)
    if kernels:
        _, rows, quantized = rms_norm_kernels.add_norm(
            residual, torch.empty(0, 3, 256), weight, EPS, None, quantize=True
        )
    else:
        normed = rms_norm.add_norm(residual, None, weight, EPS, quantize=True)
        rows, quantized = normed.rows, normed.quantized
    assert rows.shape == (0, 256)
    assert quantized is not None
    assert quantized.values.shape == (0, 256)
