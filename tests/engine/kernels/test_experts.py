"""The experts, by every way, against each choice by itself in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.kernels.expert_operands import Experts, choose
from tests.engine.kernels.operands import exact, normal
from upcurve.engine.kernels import block_scaled_rows, expert_order, experts
from upcurve.engine.kernels.block_scaled import quantize_rows
from upcurve.engine.kernels.experts import experts_grouped, experts_reference
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

needs_interpreter = pytest.mark.skipif(
    not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"
)
pytestmark = pytest.mark.usefixtures("poisoned")
WAYS = ["torch", *(pytest.param(way, marks=needs_interpreter) for way in ("few", "many", "most"))]
"""In torch; on a GPU each choice by itself, sorted, sorted with FP8 rows between the products."""
ways = pytest.mark.parametrize("way", WAYS)


@contextmanager
def going(way: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (experts, expert_order):
            patch.setattr(module, "runs_kernels", lambda device: way != "torch")
        patch.setattr(experts, "FEW_SLOTS", 10**6 if way == "few" else 0)
        patch.setattr(experts, "FEW_ROWS", 0 if way == "most" else 10**6)
        yield


def check(
    way: str, weights: Experts, x: torch.Tensor, ids: torch.Tensor, within: float = 1e-5
) -> None:
    """Compare all choices; the experts that nobody chose hold NaN."""
    weights.forget(ids)
    with going(way):
        out = experts_grouped(x, ids, *matrices(weights))
    assert out.dtype == x.dtype
    torch.testing.assert_close(out.double(), expected(weights, x, ids), atol=within, rtol=within)


def matrices(
    weights: Experts,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    return weights.gate_up, weights.down, weights.gate_up_scale, weights.down_scale


def expected(
    weights: Experts, x: torch.Tensor, ids: torch.Tensor, *, rounded: bool = False
) -> torch.Tensor:
    """Return float64 [T, K, H]; rows are rounded to FP8 before both products where wanted."""
    out = torch.zeros(*ids.shape, x.shape[1], dtype=torch.float64)
    for token, row in enumerate(x):
        for choice, expert in enumerate(ids[token].tolist()):
            inner = weights.gated(in_fp8(row) if rounded else row, expert)
            inner = in_fp8(inner.to(x.dtype)) if rounded else inner
            out[token, choice] = weights.lowered(inner, expert)
    return out


def in_fp8(row: torch.Tensor) -> torch.Tensor:
    return exact(*quantize_rows(row.unsqueeze(0)), 1).squeeze(0)


@ways
@settings(max_examples=10)
@given(
    tokens=st.integers(1, 12),
    count=st.integers(1, 6),
    share=st.floats(0, 1),
    hidden=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_any_sizes(
    way: str, tokens: int, count: int, share: float, hidden: int, width: int
) -> None:
    ids = choose(tokens, count, 1 + int(share * (count - 1)), seed=width)
    check(way, Experts.draw(count, hidden=hidden, width=width), normal(tokens, hidden), ids)


@ways
@pytest.mark.parametrize("tokens", [1, 40])
@pytest.mark.parametrize("expert", [0, 4])
def test_all_tokens_on_one_expert(way: str, tokens: int, expert: int) -> None:
    ids = torch.full((tokens, 1), expert, dtype=torch.int32)
    check(way, Experts.draw(5, hidden=8, width=8), normal(tokens, 8), ids)


@ways
def test_rows_of_a_wider_matrix(way: str) -> None:
    wide = normal(6, 40)
    check(way, Experts.draw(3, hidden=16, width=8), wide[:, 8:24], choose(6, 3, 2))


@ways
@pytest.mark.parametrize("tokens", [1, 9])
def test_fp8(way: str, tokens: int) -> None:
    weights, ids = Experts.draw(4, hidden=150, width=128, fp8=True), choose(tokens, 4, 2)
    x = normal(tokens, 150)
    weights.forget(ids)
    # A few rows are not rounded.
    want = expected(weights, x, ids, rounded=way != "few")
    with going(way):
        out = experts_grouped(x, ids, *matrices(weights)).double()
    # A sum in float32 may be rounded to the FP8 value beside that of the sum in float64.
    error = (out - want).norm(dim=-1) / want.norm(dim=-1)
    assert error.max() < (1e-5 if way == "few" else 5e-3)


@needs_interpreter
@pytest.mark.parametrize("way", ["many", "most"])
def test_rows_that_are_known_in_fp8_are_not_quantised_again(way: str) -> None:
    weights, ids = Experts.draw(3, hidden=130, width=128, fp8=True), choose(5, 3, 2)
    x = normal(5, 130)
    with going(way):
        known = block_scaled_rows.quantize(x)
        want = experts_grouped(x, ids, *matrices(weights))
        out = experts_grouped(torch.full_like(x, torch.nan), ids, *matrices(weights), known)
    assert torch.equal(out, want)


@pytest.mark.parametrize(("tokens", "width"), [(1, 8), (1, 9), (30, 8), (30, 9)])
def test_bfloat16(tokens: int, width: int) -> None:
    weights = Experts.draw(6, hidden=16, width=width)
    weights = Experts(weights.gate_up.bfloat16(), weights.down.bfloat16())
    check("torch", weights, normal(tokens, 16).bfloat16(), choose(tokens, 6, 2), within=0.04)


@settings(max_examples=20)
@given(
    tokens=st.integers(1, 20),
    count=st.integers(1, 10),
    share=st.floats(0, 1),
    hidden=st.integers(1, 17),
    width=st.integers(1, 9),
)
def test_the_loop_over_experts_weighs_and_sums(
    tokens: int, count: int, share: float, hidden: int, width: int
) -> None:
    ids = choose(tokens, count, 1 + int(share * (count - 1)), seed=width)
    weights, x = Experts.draw(count, hidden=hidden, width=width), normal(tokens, hidden)
    mixing = normal(*ids.shape, seed=3)
    weights.forget(ids)
    out = experts_reference(x, ids, mixing, *matrices(weights))
    want = (expected(weights, x, ids) * mixing.double().unsqueeze(-1)).sum(1)
    torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=1e-5)


@ways
@pytest.mark.parametrize("fp8", [False, True], ids=["float32", "fp8"])
# Rows of nobody, which hold NaN here, may be quantised: they are not read.
@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_choices_of_nobody_are_left_out(way: str, fp8: bool) -> None:
    weights = Experts.draw(3, hidden=40, width=128, fp8=fp8)
    ids = torch.tensor([[0, 3], [3, 3], [2, 0], [3, 1]], dtype=torch.int32)
    x = normal(4, 40)
    with going(way):
        out = experts_grouped(x, ids, *matrices(weights))
    here = ids < 3
    known = expected(weights, x, ids.clamp_max(2), rounded=fp8 and way != "few")[here]
    error = (out[here].double() - known).norm(dim=-1) / known.norm(dim=-1)
    assert error.max() < (5e-3 if fp8 and way != "few" else 1e-5)
    if way == "torch":
        assert not out[~here].any()
        mixed = experts_reference(x, ids, torch.ones(4, 2), *matrices(weights))
        torch.testing.assert_close(mixed, out.sum(1), atol=1e-4, rtol=1e-4)
