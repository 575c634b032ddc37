"""The gated delta rule against a loop over its formulas in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.engine.kernels import gated_delta

Inputs = tuple[torch.Tensor, ...]


def naive(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """S <- exp(g) S;  S <- S + k (beta (v - S^T k))^T;  o = S^T q, head by head in float64."""
    q, k, v, g, beta, state = (each.double() for each in inputs)
    state = state.clone()
    out = torch.zeros_like(v)
    for t in range(len(q)):
        for head in range(q.shape[1]):
            matrix = state[head] * g[t, head].exp()
            wrong = v[t, head] - matrix.T @ k[t, head]
            matrix = matrix + beta[t, head] * torch.outer(k[t, head], wrong)
            state[head] = matrix
            out[t, head] = matrix.T @ q[t, head]
    return out, state


def draw(length: int, seed: int, *, heads: int = 2, decay: float = 0.1) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    q = gated_delta.unit(normal(length, heads, 8)) * 8**-0.5
    k = gated_delta.unit(normal(length, heads, 8))
    v = normal(length, heads, 6)
    g = -decay * torch.rand(length, heads, generator=generator)
    beta = torch.rand(length, heads, generator=generator)
    return q, k, v, g, beta, normal(heads, 8, 6)


def close(got: tuple[torch.Tensor, torch.Tensor], want: tuple[torch.Tensor, torch.Tensor]) -> None:
    for one, other in zip(got, want, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, atol=2e-5, rtol=2e-5)


@settings(max_examples=30)
@given(
    length=st.one_of(st.sampled_from([1, 63, 64, 65, 127, 128, 129]), st.integers(1, 200)),
    decay=st.sampled_from([0.0, 1e-6, 0.1, 5.0, 30.0]),
    seed=st.integers(0, 999),
)
def test_chunks_and_steps_follow_the_formulas(length: int, decay: float, seed: int) -> None:
    inputs = draw(length, seed, decay=decay)
    before = inputs[-1].clone()
    want = naive(inputs)
    close(gated_delta.recurrence_reference(*inputs), want)
    close(gated_delta.chunked(*inputs), want)
    assert torch.equal(inputs[-1], before)


@pytest.mark.parametrize("at", [0, 40, 64, 99])
def test_a_token_that_forgets_everything(at: int) -> None:
    inputs = draw(100, seed=at)
    inputs[3][at] = -1e4
    got = gated_delta.chunked(*inputs)
    want = naive(inputs)
    # The running sum of g holds 1e4 to about 1e-3, and the decays after it are its differences.
    for one, other in zip(got, want, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one.double(), other, atol=2e-2, rtol=0.0)
    close(gated_delta.recurrence_reference(*inputs), want)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_ends_of_the_correction(beta: float) -> None:
    inputs = draw(70, seed=3)
    inputs[4].fill_(beta)
    close(gated_delta.chunked(*inputs), naive(inputs))


def test_repeated_keys_are_the_worst_case_of_the_triangular_system() -> None:
    q, k, v, g, beta, state = draw(130, seed=4)
    k = k[:1].expand_as(k)
    inputs = (q, k, v, g * 0, beta * 0 + 1, state)
    close(gated_delta.chunked(*inputs), naive(inputs))


def test_inputs_need_not_be_contiguous() -> None:
    q, k, v, g, beta, state = draw(80, seed=5)
    want = naive((q, k, v, g, beta, state))
    turned = [each.transpose(0, 1).contiguous().transpose(0, 1) for each in (q, k, v, g, beta)]
    across = state.transpose(1, 2).contiguous().transpose(1, 2)
    close(gated_delta.chunked(*turned, across), want)
    close(gated_delta.recurrence_reference(*turned, across), want)


@given(batch=st.integers(1, 6), heads=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_step_of_many_sequences_is_each_alone(batch: int, heads: int, seed: int) -> None:
    alone = [draw(1, seed + i, heads=heads) for i in range(batch)]
    wants = [naive(each) for each in alone]
    rows = [torch.cat([each[part] for each in alone]) for part in range(5)]
    states = torch.stack([each[5] for each in alone])
    out = gated_delta.step(*rows, states)
    torch.testing.assert_close(
        out.double(), torch.cat([each[0] for each in wants]), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        states.double(), torch.stack([each[1] for each in wants]), atol=1e-5, rtol=1e-5
    )


@given(seed=st.integers(0, 99), wide=st.sampled_from([1.0, 30.0, 200.0]))
def test_gates(seed: int, wide: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (wide * torch.randn(5, 3, generator=generator) for _ in range(2))
    a_log, dt_bias = (torch.randn(3, generator=generator) for _ in range(2))
    g, beta = gated_delta.gates(a, b, a_log, dt_bias)
    softplus = torch.logaddexp(torch.zeros(()).double(), a.double() + dt_bias)
    torch.testing.assert_close(g.double(), -a_log.double().exp() * softplus, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(beta.double(), 1 / (1 + (-b.double()).exp()), atol=1e-6, rtol=1e-5)
    assert (g <= 0).all()
    narrow = gated_delta.gates(a.bfloat16(), b.bfloat16(), a_log, dt_bias)
    assert [each.dtype for each in narrow] == [torch.float32, torch.float32]


def test_unit_of_nothing_is_nothing() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.bfloat16)
    torch.testing.assert_close(gated_delta.unit(x), torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
