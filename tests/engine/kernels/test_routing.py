"""Routing against a softmax and a full sort in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.kernels.operands import among_nan, normal
from upcurve.engine.kernels import routing
from upcurve.engine.kernels.routing import (
    FEW_TOKENS,
    append_shared,
    own,
    route,
    route_in_one,
    route_reference,
)
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

needs_interpreter = pytest.mark.skipif(
    not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"
)
ways = pytest.mark.parametrize(
    "way", ["reference", "torch", pytest.param("kernel", marks=needs_interpreter)]
)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that is allocated and not written holds NaN, or the highest integer."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def routed(
    way: str, logits: torch.Tensor, top_k: int, *, shared: bool = False, share: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    if way == "kernel":
        return route_in_one(logits, top_k, shared=shared, shared_scale=share)
    if way == "torch":
        return route(logits, top_k, shared=shared, shared_scale=share)
    experts = logits.shape[1] - shared
    weights, ids = route_reference(logits[:, :experts], top_k)
    return append_shared(weights, ids, logits[:, -1], experts, share) if shared else (weights, ids)


def expected(
    logits: torch.Tensor, top_k: int, shared: bool, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    wide = logits.double()
    experts = logits.shape[1] - shared
    probabilities, ids = [], []
    for row in wide[:, :experts]:
        order = sorted(range(experts), key=lambda expert: (-row[expert].item(), expert))[:top_k]
        ids.append(order)
        probabilities.append(torch.softmax(row, 0)[order])
    weights = torch.stack(probabilities)
    weights, chosen = weights / weights.sum(1, keepdim=True), torch.tensor(ids)
    if shared:
        gate = share / (1 + (-wide[:, experts:]).exp())
        weights = torch.cat([weights, gate], 1)
        chosen = torch.cat([chosen, torch.full((len(logits), 1), experts)], 1)
    return weights, chosen.int()


@ways
@settings(max_examples=30)
@given(
    tokens=st.integers(1, 6),
    experts=st.one_of(st.integers(1, 512), st.sampled_from([256, 512])),
    most=st.integers(1, 16),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    spread=st.sampled_from([1e-3, 1.0, 30.0]),
    shared=st.booleans(),
    seed=st.integers(0, 99),
)
def test_weights_and_experts(
    way: str,
    tokens: int,
    experts: int,
    most: int,
    dtype: torch.dtype,
    spread: float,
    shared: bool,
    seed: int,
) -> None:
    top_k = min(most, experts)
    # Of 256 different steps at most in bfloat16: many are equal.
    logits = among_nan((spread * normal(tokens, experts + shared, seed=seed)).to(dtype))
    want, its_ids = expected(logits, top_k, shared, 0.25)
    weights, ids = routed(way, logits, top_k, shared=shared, share=0.25)
    assert ids.dtype == torch.int32
    assert weights.dtype == torch.float32
    assert ids.is_contiguous()
    if way == "reference":
        # Probabilities in float32 are equal where logits differ by little.
        chosen = torch.gather(logits[:, :experts].double(), 1, ids[:, :top_k].long())
        best = torch.gather(logits[:, :experts].double(), 1, its_ids[:, :top_k].long())
        torch.testing.assert_close(chosen, best, atol=1e-6, rtol=1e-6)
    else:
        assert torch.equal(ids, its_ids)
    torch.testing.assert_close(weights.double(), want, atol=1e-6, rtol=1e-5)


@ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, -3.0, 3.0, float("-inf")])
def test_of_equal_logits_the_lowest_ids_come_first(
    way: str, dtype: torch.dtype, value: float
) -> None:
    logits = torch.full((2, 20), value, dtype=dtype)
    logits[:, 7] = 5.0
    weights, ids = routed(way, logits, 4)
    assert ids.tolist() == [[7, 0, 1, 2]] * 2
    want = torch.softmax(torch.tensor([5.0, value, value, value]), 0).expand(2, 4)
    torch.testing.assert_close(weights, want)


@ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_and_infinite_logits(way: str, dtype: torch.dtype) -> None:
    lowest = float("-inf")
    logits = torch.tensor([[300.0, lowest, 298.0, 240.0, lowest, 270.0]], dtype=dtype)
    weights, ids = routed(way, logits, 4)
    assert ids.tolist() == [[0, 2, 5, 3]]
    torch.testing.assert_close(weights, torch.softmax(torch.tensor([[300.0, 298, 270, 240]]), -1))


@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_minus_zero_is_below_zero_in_the_kernel(dtype: torch.dtype) -> None:
    """Which is an order too; their weights are the same."""
    weights, ids = routed("kernel", torch.tensor([[-0.0, 0.0, -1.0]], dtype=dtype), 2)
    assert sorted(ids[0].tolist()) == [0, 1]
    assert weights.tolist() == [[0.5, 0.5]]


@ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("where", [slice(5, 6), slice(0, 40)])
def test_nan_stays_in_its_token(way: str, dtype: torch.dtype, sign: float, where: slice) -> None:
    logits = normal(3, 41).to(dtype)
    want, its_ids = expected(logits, 4, shared=True, share=1.0)
    logits[1, where] = torch.copysign(torch.tensor(torch.nan), torch.tensor(sign)).to(dtype)
    weights, ids = routed(way, logits, 4, shared=True)
    assert weights[1, :4].isnan().any()
    # Whatever is chosen exists, and once.
    assert len(set(ids[1].tolist())) == 5
    assert ((ids >= 0) & (ids <= 40)).all()
    for token in (0, 2):
        assert torch.equal(ids[token], its_ids[token])
        torch.testing.assert_close(weights[token].double(), want[token], atol=1e-6, rtol=1e-5)


@ways
def test_the_shared_expert_is_no_part_of_the_sum(way: str) -> None:
    logits = normal(5, 9, seed=1)
    logits[:, 8] = torch.tensor([-90.0, -4.0, 0.0, 4.0, 90.0])
    weights, ids = routed(way, logits, 3, shared=True, share=0.5)
    alone, its_ids = routed(way, logits[:, :8], 3)
    torch.testing.assert_close(weights[:, :3], alone)
    torch.testing.assert_close(weights[:, :3].sum(1), torch.ones(5))
    torch.testing.assert_close(weights[:, 3], 0.5 / (1 + (-logits[:, 8]).exp()))
    assert torch.equal(ids[:, :3], its_ids)
    assert ids[:, 3].tolist() == [8] * 5


@needs_interpreter
def test_programs_of_several_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "FEW_TOKENS", 4)
    logits = normal(9, 33).bfloat16()
    want, its_ids = expected(logits, 5, shared=True, share=1.0)
    weights, ids = routed("kernel", logits, 5, shared=True)
    assert torch.equal(ids, its_ids)
    torch.testing.assert_close(weights.double(), want, atol=1e-6, rtol=1e-5)
    assert FEW_TOKENS > 9


@needs_interpreter
@pytest.mark.parametrize(("experts", "top_k"), [(512, 16), (513, 2), (20, 17)])
def test_what_the_kernel_has_no_room_for_goes_to_torch(
    experts: int, top_k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    kernel = routing.route_in_one
    monkeypatch.setattr(routing, "runs_kernels", lambda device: True)
    monkeypatch.setattr(
        routing, "route_in_one", lambda *given, **how: launched.append(1) or kernel(*given, **how)
    )
    logits = normal(2, experts)
    want, its_ids = expected(logits, top_k, shared=False, share=1.0)
    weights, ids = route(logits, top_k, shared=False)
    assert torch.equal(ids, its_ids)
    torch.testing.assert_close(weights.double(), want, atol=1e-6, rtol=1e-5)
    assert len(launched) == (experts <= 512 and top_k <= 16)


@ways
def test_no_tokens(way: str) -> None:
    weights, ids = routed(way, torch.empty(0, 9), 3, shared=True)
    assert weights.shape == ids.shape == (0, 4)


def absent(way: str, logits: torch.Tensor, shared: bool, owned: range) -> tuple[torch.Tensor, ...]:
    """Route on a rank that has some of the experts."""
    if way == "reference":
        count = logits.shape[1] - shared
        weights, ids = route_reference(logits[:, :count], 3)
        weights, ids = own(weights, ids, owned, len(owned) + shared)
        if not shared:
            return weights, ids
        return append_shared(weights, ids, logits[:, -1], len(owned), 0.25)
    if way == "kernel":
        return route_in_one(logits, 3, shared=shared, shared_scale=0.25, owned=owned)
    return route(logits, 3, shared=shared, shared_scale=0.25, owned=owned)


@ways
@settings(max_examples=20)
@given(
    tokens=st.integers(1, 5),
    parts=st.sampled_from([2, 4]),
    shared=st.booleans(),
    seed=st.integers(0, 9),
)
def test_ranks_share_the_experts(
    way: str, tokens: int, parts: int, shared: bool, seed: int
) -> None:
    logits = normal(tokens, 12 + shared, seed=seed)
    weights, ids = routed("torch", logits, 3, shared=shared)
    each = 12 // parts
    total = torch.zeros(tokens, 13)
    for part in range(parts):
        owned = range(part * each, (part + 1) * each)
        mine, local = absent(way, logits, shared, owned)
        assert local.dtype == torch.int32
        for row in range(tokens):
            for weight, expert in zip(mine[row].tolist(), local[row].tolist(), strict=True):
                if expert == each + shared:
                    # Nobody here has it.
                    assert weight == 0
                else:
                    total[row, 12 if expert == each else owned[expert]] += weight
    whole = torch.zeros(tokens, 13).scatter_add_(1, ids.long(), weights)
    whole[:, 12] *= parts * 0.25
    assert torch.allclose(total, whole, atol=1e-6)
