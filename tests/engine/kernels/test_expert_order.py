"""The sort of choices against a stable sort and a count."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.kernels.expert_operands import by_expert, choose
from upcurve.engine.kernels import expert_order
from upcurve.engine.kernels.expert_order import sort_by_expert, sort_in_one
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

needs_interpreter = pytest.mark.skipif(
    not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"
)
ways = pytest.mark.parametrize(
    "way", [sort_by_expert, pytest.param(sort_in_one, marks=needs_interpreter)]
)


def check(way, ids: torch.Tensor, experts: int) -> None:  # type: ignore[no-untyped-def]
    order, ends = way(ids, experts)
    wanted_order, wanted_ends = by_expert(ids, experts)
    assert order.dtype == ends.dtype == torch.int32
    assert torch.equal(order, wanted_order)
    assert torch.equal(ends, wanted_ends)


@ways
@settings(max_examples=20)
@given(
    tokens=st.integers(0, 20),
    experts=st.integers(1, 17),
    share=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_any_choices(way, tokens: int, experts: int, share: float, seed: int) -> None:  # type: ignore[no-untyped-def]
    choices = 1 + int(share * (experts - 1))
    check(way, choose(tokens, experts, choices, seed), experts)


@needs_interpreter
@settings(max_examples=20)
@given(tokens=st.integers(1, 50), experts=st.integers(1, 9), seed=st.integers(0, 9))
def test_many_choices_are_sorted_in_segments(tokens: int, experts: int, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            *(("MOST_AT_ONCE", 0), ("SEGMENT", 32), ("COMPARED", 16)),
            *(("SUMMED", 2), ("LANES", 4)),
        ):
            patch.setattr(expert_order, name, value)
        check(sort_in_one, choose(tokens, experts, (experts + 1) // 2, seed), experts)


@needs_interpreter
@pytest.mark.parametrize("count", [600, 5000])
def test_choices_of_nobody_are_left_out(count: int) -> None:
    ids = torch.randint(0, 8, (count, 1), dtype=torch.int32)
    order, ends = sort_in_one(ids, 7)
    wanted, wanted_ends = by_expert(ids, 8)
    assert torch.equal(ends, wanted_ends[:7])
    assert torch.equal(order[: ends[-1]], wanted[: ends[-1]])


@needs_interpreter
@pytest.mark.parametrize("expert", [0, 3, 6])
@pytest.mark.parametrize("count", [4096, 4097, 9000])
def test_all_choices_are_one_expert(expert: int, count: int) -> None:
    check(sort_in_one, torch.full((count, 1), expert, dtype=torch.int32), 7)


@needs_interpreter
def test_a_gpu_gets_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(expert_order, "runs_kernels", lambda device: True)
    monkeypatch.setattr(expert_order, "sort_in_one", lambda *given: called.append(given))
    ids = choose(3, 5, 2)
    sort_by_expert(ids, 5)
    assert called == [(ids, 5)]
