"""The experts against a sum over tokens and choices in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels.experts import experts_grouped, experts_reference

Run = Callable[..., torch.Tensor]
both = pytest.mark.parametrize("run", [experts_grouped, experts_reference])


def naive(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    out = torch.zeros(x.shape, dtype=torch.float64)
    width = down.shape[-1]
    for token in range(len(x)):
        for choice, expert in enumerate(ids[token].tolist()):
            row, both_parts = x[token].double(), gate_up[expert].double()
            inner = F.silu(both_parts[:width] @ row) * (both_parts[width:] @ row)
            out[token] += weights[token, choice].double() * (down[expert].double() @ inner)
    return out


def draw(
    tokens: int, experts: int, chosen: int, hidden: int, width: int, seed: int
) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator) * size[-1] ** -0.5

    ids = torch.rand(tokens, experts, generator=generator).topk(chosen).indices
    weights = torch.rand(tokens, chosen, generator=generator)
    gate_up, down = normal(experts, 2 * width, hidden), normal(experts, hidden, width)
    return normal(tokens, hidden), ids, weights, gate_up, down


@both
@given(
    tokens=st.integers(1, 30),
    experts=st.integers(1, 20),
    share=st.floats(0, 1),
    hidden=st.integers(1, 17),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_any_sizes(
    run: Run, tokens: int, experts: int, share: float, hidden: int, width: int, seed: int
) -> None:
    chosen = 1 + int(share * (experts - 1))
    inputs = draw(tokens, experts, chosen, hidden, width, seed)
    torch.testing.assert_close(run(*inputs).double(), naive(*inputs), atol=1e-5, rtol=1e-5)


@both
@pytest.mark.parametrize("tokens", [1, 40])
@pytest.mark.parametrize("expert", [0, 7, 15])
def test_all_tokens_on_one_expert(run: Run, tokens: int, expert: int) -> None:
    x, ids, weights, gate_up, down = draw(tokens, 16, 1, 8, 8, seed=expert)
    ids.fill_(expert)
    # What no token visits may hold anything.
    for other in set(range(16)) - {expert}:
        gate_up[other] = down[other] = torch.nan
    inputs = (x, ids, weights, gate_up, down)
    torch.testing.assert_close(run(*inputs).double(), naive(*inputs), atol=1e-5, rtol=1e-5)


@both
def test_inputs_need_not_be_contiguous(run: Run) -> None:
    x, ids, weights, gate_up, down = draw(20, 8, 3, 16, 8, seed=1)
    want = naive(x, ids, weights, gate_up, down)
    turned = (each.t().contiguous().t() for each in (x, ids, weights))
    got = run(*turned, gate_up[:8], down[:8])
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)


@both
@pytest.mark.parametrize("width", [8, 9])
@pytest.mark.parametrize("tokens", [1, 30])
def test_bfloat16(run: Run, width: int, tokens: int) -> None:
    x, ids, weights, gate_up, down = draw(tokens, 6, 2, 16, width, seed=2)
    x, gate_up, down = x.bfloat16(), gate_up.bfloat16(), down.bfloat16()
    got = run(x, ids, weights, gate_up, down)
    assert got.dtype == torch.bfloat16
    want = naive(x, ids, weights, gate_up, down)
    torch.testing.assert_close(got.double(), want, atol=0.01, rtol=0.05)
