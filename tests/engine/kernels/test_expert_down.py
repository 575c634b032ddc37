"""The second product of the experts under Triton's interpreter, against float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.kernels.expert_operands import Experts, by_expert, choose
from tests.engine.kernels.operands import exact, normal
from upcurve.engine.kernels import expert_down
from upcurve.engine.kernels.block_scaled_rows import quantize
from upcurve.engine.kernels.expert_down import down
from upcurve.engine.kernels.tiles import ExpertTile
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

pytestmark = [
    pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"),
    pytest.mark.usefixtures("poisoned"),
]
# The weight is the left side of the product below 64 rows.
tiles = st.sampled_from([None, *(ExpertTile(rows, 32, 4, 1) for rows in (16, 64))])
forms = pytest.mark.parametrize("form", ["float32", "fp8 in the kernel", "fp8 before"])


def check(
    experts: Experts,
    inner: torch.Tensor,
    ids: torch.Tensor,
    form: str,
    *,
    tile: ExpertTile | None = None,
    within: float = 1e-5,
) -> None:
    """Compare every row; the experts that nobody chose hold NaN."""
    experts.forget(ids)
    order, ends = by_expert(ids, len(experts.down))
    quantized = quantize(inner)
    plain = form == "float32"
    known = inner.double() if plain else exact(quantized.values, quantized.scale, 1)
    given = quantized if form == "fp8 before" else inner
    out = down(given, experts.down, experts.down_scale, order, ends, dtype=inner.dtype, tile=tile)
    assert out.shape == (ids.numel(), experts.down.shape[1])
    assert out.dtype == inner.dtype
    chosen = ids.flatten().tolist()
    for row, slot in zip(known, order.tolist(), strict=True):
        want = experts.lowered(row, chosen[slot])
        torch.testing.assert_close(out[slot].double(), want, atol=within, rtol=within)


@forms
@settings(max_examples=10)
@given(
    tokens=st.integers(0, 12),
    count=st.integers(1, 5),
    share=st.floats(0, 1),
    hidden=st.integers(1, 150),
    width=st.integers(1, 200),
    few=st.sampled_from([0, 32]),
    tile=tiles,
)
def test_any_sizes(
    form: str,
    tokens: int,
    count: int,
    share: float,
    hidden: int,
    width: int,
    few: int,
    tile: ExpertTile | None,
) -> None:
    ids = choose(tokens, count, 1 + int(share * (count - 1)), seed=hidden)
    experts = Experts.draw(count, hidden=hidden, width=width, fp8=form != "float32")
    with pytest.MonkeyPatch.context() as patch:
        # Of many rows a program goes through all columns.
        patch.setattr(expert_down, "FEW_ROWS", few)
        check(experts, normal(ids.numel(), width), ids, form, tile=tile)


@forms
@pytest.mark.parametrize("tokens", [1, 70])
@pytest.mark.parametrize("expert", [0, 1])
def test_all_tokens_on_one_expert(form: str, tokens: int, expert: int) -> None:
    experts = Experts.draw(2, hidden=40, width=20, fp8=form != "float32")
    ids = torch.full((tokens, 1), expert, dtype=torch.int32)
    check(experts, normal(tokens, 20), ids, form)


@pytest.mark.parametrize("form", ["fp8 in the kernel", "fp8 before"])
def test_scales_of_all_blocks(form: str) -> None:
    experts = Experts.draw(2, hidden=300, width=300, fp8=True)
    inner = normal(4, 300) * torch.logspace(-2, 2, 300)
    check(experts, inner, choose(2, 2, 2), form, tile=ExpertTile(16, 128, 4, 1), within=1e-4)


@pytest.mark.parametrize("form", ["fp8 in the kernel", "fp8 before"])
def test_rows_of_zeros_stay_zero(form: str) -> None:
    experts = Experts.draw(2, hidden=20, width=130, fp8=True)
    inner = normal(2, 130)
    inner[0] = 0
    inner[1, :128] = 0
    check(experts, inner, choose(2, 2, 1), form)


def test_results_are_rounded_to_the_type_of_the_model() -> None:
    experts = Experts.draw(2, hidden=48, width=24)
    experts = Experts(experts.gate_up.half(), experts.down.half())
    check(experts, normal(4, 24).half(), choose(4, 2, 1), "float32", within=1e-3)
