"""The convolution kernel against its reference, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.engine.kernels import causal_conv_kernels
from upcurve.engine.kernels.causal_conv import convolve_sequence
from upcurve.engine.kernels.causal_conv_kernels import (
    ConvolutionTile,
    convolve_sequences_in_place,
)
from upcurve.engine.kernels.sequences import Chunk, Sequences

CPU = torch.device("cpu")
SMALL = ConvolutionTile(tokens=8, channels=16)


def check(
    lengths: list[int], contexts: list[int], channels: int, kernel: int, tile: ConvolutionTile
) -> None:
    generator = torch.Generator().manual_seed(sum(lengths) + channels)
    total, slots = sum(lengths), torch.randperm(9, generator=generator).tolist()
    x = torch.randn(total, channels + 3, generator=generator)[:, 1 : 1 + channels]
    weight = torch.randn(kernel, channels, generator=generator)
    rings = torch.randn(9, kernel, channels, generator=generator)
    chunks, start = [], 40
    for length, context, slot in zip(lengths, contexts, slots, strict=False):
        chunks.append(Chunk(start, length, context, slot))
        start += length
        # What no position of the sequence has written is anything.
        rings[slot, context:] = torch.nan
    expected, wanted = rings.clone().double(), []
    for part, chunk in zip(x.double().split(lengths), chunks, strict=True):
        ring = expected[chunk.slot]
        wanted.append(convolve_sequence(part, ring, chunk.context, weight.double()))
    sequences = Sequences.of(tuple(chunks), CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(causal_conv_kernels.torch, "empty", poisoned)
        got = convolve_sequences_in_place(x, rings, sequences, weight, tile=tile)
    torch.testing.assert_close(got.double(), torch.cat(wanted), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rings, expected.float(), atol=0, rtol=0, equal_nan=True)


def poisoned(*size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.full(size, torch.nan, dtype=dtype, device=device)


@settings(max_examples=20)
@given(
    sequences=st.lists(
        st.tuples(
            st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 24])), st.integers(0, 7)
        ),
        min_size=1,
        max_size=5,
    ),
    channels=st.one_of(st.integers(1, 20), st.sampled_from([32, 33])),
    kernel=st.integers(1, 5),
)
def test_sequences_are_the_references_and_other_rings_stay(
    sequences: list[tuple[int, int]], channels: int, kernel: int
) -> None:
    lengths, contexts = zip(*sequences, strict=True)
    check(list(lengths), list(contexts), channels, kernel, SMALL)


def test_the_tile_that_is_launched() -> None:
    tile = ConvolutionTile()
    check([tile.tokens + 1, 2, 2 * tile.tokens], [0, 3, 4], tile.channels + 1, 4, tile)
