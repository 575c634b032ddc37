"""The convolution kernels against their reference, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels.causal_conv import convolve_sequence, convolve_step
from upcurve.engine.kernels.causal_conv_kernels import (
    BLOCK,
    CHANNELS,
    TOKENS,
    convolve_sequence_in_place,
    convolve_step_in_place,
)


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


@given(
    length=st.one_of(st.integers(1, 8), st.integers(TOKENS - 1, TOKENS + 2)),
    channels=st.one_of(st.integers(1, 20), st.integers(CHANNELS - 1, CHANNELS + 1)),
    kernel=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_a_sequence_is_the_references(length: int, channels: int, kernel: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(length, channels + 3, generator=generator)[:, 1 : 1 + channels]
    states = torch.randn(3, kernel - 1, channels, generator=generator)
    weight = torch.randn(kernel, channels, generator=generator)
    before = states.clone()
    want, moved = convolve_sequence(x.double(), states[1].double(), weight.double())
    got = convolve_sequence_in_place(x, states[1], weight)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)
    before[1] = moved.float()
    assert torch.equal(states, before)
