"""The output gate against float64, as a kernel under Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels.output_gate import gate_in_one, gate_rows
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

needs_interpreter = pytest.mark.skipif(
    not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"
)


def draw(tokens: int, heads: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that lie head by head, and a gate between queries, as a projection has them."""
    generator = torch.Generator().manual_seed(tokens + heads)
    x = torch.randn(heads, tokens, width, generator=generator).transpose(0, 1)
    both = torch.randn(tokens, heads, 2 * width, generator=generator)
    both[..., :width] = torch.nan
    return x, both[..., width:]


@needs_interpreter
@given(
    tokens=st.integers(0, 3), heads=st.integers(1, 9), width=st.sampled_from([1, 16, 24, 128, 256])
)
def test_rows_are_gated(tokens: int, heads: int, width: int) -> None:
    x, gate = draw(tokens, heads, width)
    want = (x.double() * torch.sigmoid(gate.double())).flatten(1)
    rows, quantized = gate_in_one(x, gate, quantize=False)
    assert quantized is None
    torch.testing.assert_close(rows.double(), want, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gate_rows(x, gate)[0].double(), want, atol=1e-6, rtol=1e-5)


@needs_interpreter
@pytest.mark.parametrize(("heads", "width"), [(3, 128), (2, 256), (5, 384)])
def test_rows_in_fp8(heads: int, width: int) -> None:
    # The interpreter cannot round to FP8: what is drawn is FP8 times a power of two already.
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0x08, 0x7F, (2, heads * width), generator=generator, dtype=torch.uint8)
    values = bits.view(torch.float8_e4m3fn).float()
    values[:, ::128] = 448
    scale = 2.0 ** torch.randint(-20, 20, (2, heads * width // 128), generator=generator)
    x = (values * scale.repeat_interleave(128, 1)).view(2, heads, width)
    rows, quantized = gate_in_one(x, torch.full_like(x, 100.0), quantize=True)
    assert quantized is not None
    assert torch.equal(rows, x.flatten(1))
    assert torch.equal(quantized.values.float(), values)
    assert torch.equal(quantized.scale, scale)


@needs_interpreter
def test_heads_that_are_no_blocks_are_not_quantised_here() -> None:
    x, gate = draw(2, 3, 64)
    assert gate_in_one(x, gate, quantize=True)[1] is None
