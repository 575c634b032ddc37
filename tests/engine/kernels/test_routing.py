"""Routing against softmax and a full sort in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels.routing import append_shared, route_fused, route_reference

Route = Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]
both = pytest.mark.parametrize("route", [route_fused, route_reference])


@both
@given(data=st.data())
def test_weights_and_experts(route: Route, data: st.DataObject) -> None:
    experts = data.draw(st.integers(1, 512))
    chosen = data.draw(st.integers(1, min(experts, 12)))
    tokens = data.draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    # A permutation, so that no two logits are equal.
    logits = torch.stack([torch.randperm(experts, generator=generator) for _ in range(tokens)])
    logits = logits.float() * 0.01
    weights, ids = route(logits, chosen)
    probabilities = torch.softmax(logits.double(), -1)
    best, order = probabilities.sort(dim=-1, descending=True)
    assert torch.equal(ids, order[:, :chosen])
    want = best[:, :chosen] / best[:, :chosen].sum(-1, keepdim=True)
    torch.testing.assert_close(weights.double(), want, atol=1e-6, rtol=1e-5)
    assert weights.dtype == torch.float32
    assert ids.dtype == torch.int64


@both
def test_equal_logits_share_the_weight(route: Route) -> None:
    weights, ids = route(torch.zeros(3, 20), 4)
    torch.testing.assert_close(weights, torch.full((3, 4), 0.25))
    assert all(len(set(row)) == 4 for row in ids.tolist())


@both
def test_large_bfloat16_logits_and_strided_rows(route: Route) -> None:
    logits = torch.tensor([[300.0, -300.0, 298.0, 0.0]], dtype=torch.bfloat16)
    strided = torch.stack([logits, logits], dim=-1)[..., 0]
    weights, ids = route(strided, 2)
    assert ids.tolist() == [[0, 2]]
    torch.testing.assert_close(weights, torch.softmax(torch.tensor([[300.0, 298.0]]), -1))


def test_the_shared_expert_is_no_part_of_the_sum() -> None:
    weights, ids = route_fused(torch.randn(5, 8, generator=torch.Generator().manual_seed(1)), 3)
    gate = torch.linspace(-4, 4, 5)
    mixed, chosen = append_shared(weights, ids, gate, 8)
    assert torch.equal(mixed[:, :3], weights)
    torch.testing.assert_close(mixed[:, 3], 1 / (1 + (-gate).exp()))
    assert torch.equal(chosen[:, :3], ids)
    assert chosen[:, 3].tolist() == [8] * 5
