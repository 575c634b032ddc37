"""The first product of the experts under Triton's interpreter, against float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.kernels.expert_operands import Experts, by_expert, choose
from tests.engine.kernels.operands import among_nan, exact, normal
from upcurve.engine.kernels.block_scaled_rows import quantize
from upcurve.engine.kernels.expert_gate_up import gate_up
from upcurve.engine.kernels.quantized import QuantizedRows
from upcurve.engine.kernels.tiles import ExpertTile
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

pytestmark = [
    pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"),
    pytest.mark.usefixtures("poisoned"),
]
# The weight is the left side of the product below 64 rows.
tiles = st.sampled_from([None, *(ExpertTile(rows, 64, 4, 2) for rows in (16, 64))])
fp8 = pytest.mark.parametrize("fp8", [False, True], ids=["float32", "fp8"])


def check(
    experts: Experts,
    x: torch.Tensor,
    ids: torch.Tensor,
    *,
    fp8: bool = False,
    tile: ExpertTile | None = None,
    within: float = 1e-5,
) -> None:
    """Compare every row; the experts that nobody chose hold NaN."""
    experts.forget(ids)
    order, ends = by_expert(ids, len(experts.down))
    given: torch.Tensor | QuantizedRows = among_nan(x)
    known = x.double()
    if fp8:
        quantized = quantize(among_nan(x))
        known = exact(quantized.values, quantized.scale, 1)
        if len(x):
            # Scales of rows behind the last are not read.
            quantized.whole().scale[len(x) :] = torch.nan
        given = QuantizedRows(among_nan(quantized.values), quantized.scale)
    weights, scale = experts.gate_up, experts.gate_up_scale
    choices = ids.shape[1]
    out = gate_up(given, weights, scale, order, ends, choices=choices, dtype=x.dtype, tile=tile)
    assert out.shape == (ids.numel(), experts.down.shape[2])
    assert out.dtype == x.dtype
    chosen = ids.flatten().tolist()
    for got, slot in zip(out, order.tolist(), strict=True):
        want = experts.gated(known[slot // choices], chosen[slot])
        torch.testing.assert_close(got.double(), want, atol=within, rtol=within)


@fp8
@settings(max_examples=12)
@given(
    tokens=st.integers(0, 12),
    count=st.integers(1, 5),
    share=st.floats(0, 1),
    hidden=st.integers(1, 200),
    width=st.integers(1, 90),
    tile=tiles,
)
def test_any_sizes(
    fp8: bool,
    tokens: int,
    count: int,
    share: float,
    hidden: int,
    width: int,
    tile: ExpertTile | None,
) -> None:
    ids = choose(tokens, count, 1 + int(share * (count - 1)), seed=hidden)
    experts = Experts.draw(count, hidden=hidden, width=128 if fp8 else width, fp8=fp8)
    check(experts, normal(tokens, hidden), ids, fp8=fp8, tile=tile)


@fp8
@pytest.mark.parametrize("tokens", [1, 70])
@pytest.mark.parametrize("expert", [0, 2])
def test_all_tokens_on_one_expert(fp8: bool, tokens: int, expert: int) -> None:
    experts = Experts.draw(3, hidden=40, width=128 if fp8 else 20, fp8=fp8)
    ids = torch.full((tokens, 1), expert, dtype=torch.int32)
    check(experts, normal(tokens, 40), ids, fp8=fp8, tile=ExpertTile(16, 64, 4, 2))


def test_scales_of_all_blocks() -> None:
    experts = Experts.draw(2, hidden=300, width=256, fp8=True)
    check(experts, normal(3, 300), choose(3, 2, 2), fp8=True, tile=ExpertTile(16, 128, 4, 2))


def test_results_are_rounded_to_the_type_of_the_model() -> None:
    experts = Experts.draw(2, hidden=48, width=24)
    experts = Experts(experts.gate_up.half(), experts.down.half())
    check(experts, normal(4, 48).half(), choose(4, 2, 1), within=1e-3)


def test_a_gate_far_below_zero_is_shut() -> None:
    weight = torch.tensor([[[-1000.0], [3.0]]])
    order, ends = torch.zeros(1).int(), torch.ones(1).int()
    x = torch.ones(1, 1)
    out = gate_up(x, weight, None, order, ends, choices=1, dtype=torch.float32)
    assert out.tolist() == [[0.0]]
