"""The quantising kernel under Triton's interpreter, and what chooses it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from upcurve.engine.kernels import block_scaled, block_scaled_rows
from upcurve.engine.kernels.block_scaled import (
    HIGHEST,
    grouped,
    linear,
    quantize_blocks,
    quantize_rows,
)
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

needs_interpreter = pytest.mark.skipif(
    not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"
)


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def among_nan(x: torch.Tensor) -> torch.Tensor:
    """The same rows between NaN."""
    wide = x.new_full((len(x) + 2, x.shape[1] + 16), torch.nan)
    wide[1:-1, : x.shape[1]] = x
    return wide[1:-1, : x.shape[1]]


def representable(rows: int, depth: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Float8 values and scales, powers of two, and their product; the interpreter cannot round."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 0x7F, (rows, depth), generator=generator, dtype=torch.uint8)
    values += 0x80 * torch.randint(0, 2, (rows, depth), generator=generator, dtype=torch.uint8)
    values = values.view(torch.float8_e4m3fn).float()
    values[:, ::128] = HIGHEST
    exponents = torch.randint(-60, 60, (rows, -(-depth // 128)), generator=generator)
    scale = 2.0**exponents
    return values, scale, (values * scale.repeat_interleave(128, 1)[:, :depth])


@needs_interpreter
@pytest.mark.parametrize(("rows", "depth"), [(1, 128), (1, 1), (5, 300), (3, 1024), (17, 140)])
def test_quantised_rows(rows: int, depth: int) -> None:
    expected, its_scale, x = representable(rows, depth)
    values, scale = block_scaled_rows.quantize_rows(among_nan(x))
    assert torch.equal(values.float(), expected)
    assert torch.equal(scale, its_scale)


@needs_interpreter
def test_quantised_rows_in_another_order() -> None:
    expected, its_scale, x = representable(4, 140)
    order = torch.tensor([3, 0, 0, 2, 3, 3])
    values, scale = block_scaled_rows.quantize_rows(among_nan(x), order)
    assert torch.equal(values.float(), expected[order])
    assert torch.equal(scale, its_scale[order])


@needs_interpreter
def test_gated_rows() -> None:
    expected, its_scale, up = representable(5, 140)
    # sigmoid(64) is 1 in float32.
    gate_up = among_nan(torch.cat([torch.full_like(up, 64), up / 64], 1))
    values, scale = block_scaled_rows.silu_multiply_quantize(gate_up)
    assert torch.equal(values.float(), expected)
    assert torch.equal(scale, its_scale)


@needs_interpreter
def test_scales_of_gated_rows() -> None:
    gate, up = normal(6, 200).double(), normal(6, 200, seed=1).double()
    _, scale = block_scaled_rows.silu_multiply_quantize(torch.cat([gate, up], 1).float())
    _, expected = quantize_rows(F.silu(gate) * up)
    assert torch.allclose(scale, expected, rtol=1e-5)


@needs_interpreter
def test_quantised_zeros_have_scale_one() -> None:
    values, scale = block_scaled_rows.quantize_rows(torch.zeros(2, 200))
    assert (scale == 1).all()
    assert (values.float() == 0).all()


@needs_interpreter
def test_no_rows() -> None:
    values, scale = block_scaled_rows.quantize_rows(normal(0, 130))
    assert values.shape == (0, 130)
    assert scale.shape == (0, 2)


@needs_interpreter
def test_a_device_that_runs_kernels_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, x = representable(5, 140)
    x /= 2.0**60
    weight, scale = quantize_blocks(normal(3, 20, 140))
    ends = torch.tensor([2, 2, 5], dtype=torch.int32)
    expected = grouped(x, weight, scale, ends)
    last = linear(x[2:], weight[2], scale[2])
    used = []
    monkeypatch.setattr(block_scaled, "runs_kernels", lambda device: used.append(device) or True)
    assert torch.allclose(grouped(x, weight, scale, ends), expected, rtol=1e-4, atol=1e-3)
    assert torch.allclose(linear(x[2:], weight[2], scale[2]), last, rtol=1e-4, atol=1e-3)
    assert len(used) == 2


@needs_interpreter
def test_experts_on_a_device_that_runs_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    x, order = normal(3, 130), torch.tensor([2, 0, 1, 2, 1])
    ends = torch.tensor([2, 2, 5], dtype=torch.int32)
    gate_up, down = quantize_blocks(normal(3, 48, 130)), quantize_blocks(normal(3, 20, 24))
    expected = block_scaled.experts(x, order, ends, *gate_up, *down)
    monkeypatch.setattr(block_scaled, "runs_kernels", lambda device: True)
    # The interpreter halves the float8 values that it should round up to a power of two.
    out = block_scaled.experts(x, order, ends, *gate_up, *down)
    assert (out - expected).norm() <= 0.1 * expected.norm()
