"""The causal convolution against torch's own in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels.causal_conv import convolve_sequence, convolve_step


def naive(x: torch.Tensor, state: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    window = torch.cat([state, x]).double().t().unsqueeze(0)
    out = F.conv1d(window, weight.double().t().unsqueeze(1), groups=weight.shape[1])
    return F.silu(out[0].t())


@given(
    length=st.integers(1, 40),
    channels=st.integers(1, 9),
    kernel=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_a_sequence(length: int, channels: int, kernel: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, state, weight = (
        torch.randn(size, channels, generator=generator) for size in (length, kernel - 1, kernel)
    )
    for given_x in (x, x.t().contiguous().t()):
        out, after = convolve_sequence(given_x, state, weight)
        torch.testing.assert_close(out.double(), naive(x, state, weight), atol=1e-5, rtol=1e-5)
        assert torch.equal(after, torch.cat([state, x])[length:])


@given(
    batch=st.integers(1, 6),
    channels=st.integers(1, 9),
    kernel=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_a_step_of_many_sequences(batch: int, channels: int, kernel: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 2 * channels, generator=generator)[:, ::2]
    states = torch.randn(batch, kernel - 1, channels, generator=generator)
    weight = torch.randn(kernel, channels, generator=generator)
    out, after = convolve_step(x, states, weight)
    for row in range(batch):
        want = naive(x[row, None], states[row], weight)[0]
        torch.testing.assert_close(out[row].double(), want, atol=1e-5, rtol=1e-5)
        assert torch.equal(after[row], torch.cat([states[row], x[row, None]])[1:])
