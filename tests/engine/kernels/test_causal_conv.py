"""The causal convolution against torch's own in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels.causal_conv import convolve_sequence, convolve_step


def naive(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Convolve a whole sequence [T, C] from its first input."""
    window = F.pad(x.double().t().unsqueeze(0), (len(weight) - 1, 0))
    out = F.conv1d(window, weight.double().t().unsqueeze(1), groups=weight.shape[1])
    return F.silu(out[0].t())


@given(
    pieces=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    channels=st.integers(1, 9),
    kernel=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_a_sequence_in_pieces_whatever_the_ring_held(
    pieces: list[int], channels: int, kernel: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(pieces), channels, generator=generator)
    weight = torch.randn(kernel, channels, generator=generator)
    ring = torch.full((kernel, channels), torch.nan)
    outs, context = [], 0
    for part in x.t().contiguous().t().split(pieces):
        outs.append(convolve_sequence(part, ring, context, weight))
        context += len(part)
    torch.testing.assert_close(torch.cat(outs).double(), naive(x, weight), atol=1e-5, rtol=1e-5)


@given(
    batch=st.integers(1, 4),
    channels=st.integers(1, 9),
    kernel=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_steps_of_sequences_that_began_at_different_times(
    batch: int, channels: int, kernel: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(9, batch, 2 * channels, generator=generator)[..., ::2]
    weight = torch.randn(kernel, channels, generator=generator)
    rings = torch.full((6, kernel, channels), torch.nan)
    slots = torch.randperm(6, generator=generator)[:batch]
    context = torch.arange(batch) * 2
    for row in range(batch):
        past = x[: 2 * row, row]
        if len(past):
            convolve_sequence(past, rings[slots[row]], 0, weight)
    kept = rings.clone()
    for step in range(9 - 2 * (batch - 1)):
        now = torch.stack([x[2 * row + step, row] for row in range(batch)])
        got = convolve_step(now, rings, slots, (context + step + 1).int(), weight)
        for row in range(batch):
            want = naive(x[: 2 * row + step + 1, row], weight)[-1]
            torch.testing.assert_close(got[row].double(), want, atol=1e-5, rtol=1e-5)
    others = [slot for slot in range(6) if slot not in slots.tolist()]
    torch.testing.assert_close(rings[others], kept[others], atol=0, rtol=0, equal_nan=True)
