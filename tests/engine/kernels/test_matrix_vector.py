"""Products of single rows under Triton's interpreter, against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.kernels.expert_operands import Experts, choose
from tests.engine.kernels.operands import among_nan, exact, normal
from upcurve.engine.kernels import matrix_vector
from upcurve.engine.kernels.block_scaled import quantize_blocks
from upcurve.engine.kernels.matrix_vector import down_row, gate_up_row, linear, multiply_row
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

pytestmark = [
    pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"),
    pytest.mark.usefixtures("poisoned"),
]
tiles = st.sampled_from([None, 8, 64, 128])
fp8 = pytest.mark.parametrize("fp8", [False, True], ids=["float32", "fp8"])


def same(out: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(out.double(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=25)
@given(count=st.integers(0, 3), columns=st.integers(1, 300), depth=st.integers(1, 300), tile=tiles)
def test_any_sizes(count: int, columns: int, depth: int, tile: int | None) -> None:
    rows, weight = normal(count, depth), normal(columns, depth, seed=1) * depth**-0.5
    expected = rows.double() @ weight.double().t()
    assert same(multiply_row(among_nan(rows), weight, None, tile=tile), expected)


@settings(max_examples=25)
@given(count=st.integers(0, 3), columns=st.integers(1, 300), depth=st.integers(1, 300), tile=tiles)
def test_any_sizes_in_fp8(count: int, columns: int, depth: int, tile: int | None) -> None:
    rows = normal(count, depth)
    weight, scale = quantize_blocks(normal(columns, depth, seed=1) * depth**-0.5)
    scale *= torch.arange(1, scale.numel() + 1).view(scale.shape)
    expected = rows.double() @ exact(weight, scale, 128).t()
    assert same(multiply_row(among_nan(rows), weight, scale, tile=tile), expected)


@fp8
@settings(max_examples=12)
@given(
    tokens=st.integers(0, 3),
    choices=st.integers(1, 3),
    hidden=st.integers(1, 300),
    blocks=st.integers(1, 2),
    tile=tiles,
)
def test_any_experts(
    fp8: bool, tokens: int, choices: int, hidden: int, blocks: int, tile: int | None
) -> None:
    width = 128 * blocks if fp8 else 50 * blocks
    ids = choose(tokens, 4, choices)
    experts = Experts.draw(4, hidden=hidden, width=width, fp8=fp8)
    experts.forget(ids)
    x, chosen = normal(tokens, hidden), ids.flatten().tolist()
    inner = gate_up_row(among_nan(x), experts.gate_up, experts.gate_up_scale, ids, tile=tile)
    assert inner.shape == (tokens * choices, width)
    for slot, expert in enumerate(chosen):
        assert same(inner[slot], experts.gated(x[slot // choices], expert))
    out = down_row(among_nan(inner), experts.down, experts.down_scale, ids, tile=tile)
    assert out.shape == (tokens * choices, hidden)
    for slot, expert in enumerate(chosen):
        assert same(out[slot], experts.lowered(inner[slot], expert))


@fp8
def test_results_are_rounded_once(fp8: bool) -> None:
    experts = Experts.draw(3, hidden=256, width=128, fp8=fp8)
    if not fp8:
        experts = Experts(experts.gate_up.half(), experts.down.half())
    ids, x = choose(2, 3, 2), normal(2, 256).half()
    inner = gate_up_row(x, experts.gate_up, experts.gate_up_scale, ids)
    out = down_row(inner, experts.down, experts.down_scale, ids)
    assert inner.dtype == out.dtype == torch.float16
    for slot, expert in enumerate(ids.flatten().tolist()):
        for got, expected in (
            (inner[slot], experts.gated(x[slot // 2], expert)),
            (out[slot], experts.lowered(inner[slot], expert)),
        ):
            # Half a step; what cancels has the error of the float32 sum.
            assert ((got.double() - expected).abs() <= 2**-11 * expected.abs() + 1e-5).all()


def test_a_gate_far_below_zero_is_shut() -> None:
    weight = torch.tensor([[[-1000.0], [3.0]]])
    out = gate_up_row(torch.ones(1, 1), weight, None, torch.zeros(1, 1, dtype=torch.int32))
    assert out.tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("few", "small", "count", "by_kernel"),
    [(4, 60, 4, True), (4, 60, 5, False), (4, 59, 1, True), (4, 59, 2, False)],
)
def test_few_rows_of_a_gpu_get_the_kernel(
    monkeypatch: pytest.MonkeyPatch, few: int, small: int, count: int, by_kernel: bool
) -> None:
    monkeypatch.setattr(matrix_vector, "runs_kernels", lambda device: True)
    monkeypatch.setattr(matrix_vector, "FEW_ROWS", few)
    monkeypatch.setattr(matrix_vector, "SMALL", small)
    counts = []

    def counted(rows: torch.Tensor, *rest: torch.Tensor | None) -> torch.Tensor:
        counts.append(len(rows))
        return multiply_row(rows, *rest)

    monkeypatch.setattr(matrix_vector, "multiply_row", counted)
    rows, weight = normal(count, 6), normal(10, 6, seed=1)
    assert same(linear(rows, weight), rows.double() @ weight.double().t())
    assert counts == [count] * by_kernel
    # The rows of a part of a wider matrix are not the kernel's.
    assert torch.equal(linear(rows[:, :3], weight[:, :3]), F.linear(rows[:, :3], weight[:, :3]))
    assert counts == [count] * by_kernel


def test_elsewhere_the_library_multiplies() -> None:
    rows, weight = normal(1, 6), normal(10, 6, seed=1)
    assert torch.equal(linear(rows, weight), F.linear(rows, weight))


@fp8
def test_nothing_is_computed_for_an_expert_that_is_not_there(fp8: bool) -> None:
    experts = Experts.draw(3, hidden=40, width=128, fp8=fp8)
    ids = torch.tensor([[0, 3], [3, 2]], dtype=torch.int32)
    x = normal(2, 40)
    inner = gate_up_row(x, experts.gate_up, experts.gate_up_scale, ids)
    out = down_row(inner, experts.down, experts.down_scale, ids)
    for slot, expert in enumerate(ids.flatten().tolist()):
        if expert == 3:
            # Memory that nobody wrote holds NaN here.
            assert inner[slot].isnan().all()
            assert out[slot].isnan().all()
        else:
            assert same(inner[slot], experts.gated(x[slot // 2], expert))
            assert same(out[slot], experts.lowered(inner[slot], expert))
