"""The convolution kernel against its reference, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels.causal_conv import convolve_step
from upcurve.engine.kernels.causal_conv_step import BLOCK, convolve_step_in_place


@given(
    batch=st.integers(1, 4),
    channels=st.integers(1, 40),
    kernel=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_a_step_is_the_references_and_other_slots_stay(
    batch: int, channels: int, kernel: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(batch, channels + 3, generator=generator)
    x = wide[:, 2 : 2 + channels]
    states = torch.randn(6, kernel - 1, channels, generator=generator)
    weight = torch.randn(kernel, channels, generator=generator)
    slots = torch.randperm(6, generator=generator)[:batch]
    before = states.clone()
    want, moved = convolve_step(x.double(), states[slots].double(), weight.double())
    got = convolve_step_in_place(x, states, slots, weight)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)
    before[slots] = moved.float()
    assert torch.equal(states, before)


@pytest.mark.parametrize("channels", [BLOCK, BLOCK + 1])
def test_channels_at_the_edge_of_a_program(channels: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, channels, generator=generator)
    states = torch.randn(1, 3, channels, generator=generator)
    weight = torch.randn(4, channels, generator=generator)
    want, moved = convolve_step(x, states, weight)
    got = convolve_step_in_place(x, states, torch.tensor([0]), weight)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert torch.equal(states, moved)
