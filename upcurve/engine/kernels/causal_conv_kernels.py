"""The causal convolution of many tokens of some sequences as one kernel, their rings in place."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from upcurve.engine.kernels.sequences import Sequences
from upcurve.engine.platform import overlapping, tl, triton, wait_for_inputs

LANES = 32
"""Sequences that a program looks through at least: up to so many the kernel is the same."""


@dataclass(frozen=True, slots=True)
class ConvolutionTile:
    """What one program computes: some channels of some tokens of one sequence."""

    tokens: int = 64
    channels: int = 128
    warps: int = 8


def convolve_sequences_in_place(
    x: torch.Tensor,
    rings: torch.Tensor,
    sequences: Sequences,
    weight: torch.Tensor,
    *,
    tile: ConvolutionTile | None = None,
) -> torch.Tensor:
    """Convolve the next inputs of N sequences, then SiLU; sums are float32.

    What is launched follows from the shapes alone. The rings are those of `causal_conv`.

    Args:
        x: [T, C], channels contiguous.
        rings: [slots_total, kernel, C], contiguous; those of the sequences move on.
        sequences: N of them, whose rows are those of x.
        weight: [kernel, C], contiguous, oldest first.
        tile: of one program.

    Returns:
        [T, C] in the dtype of x.
    """
    count, channels = x.shape
    assert x.stride(1) == 1
    assert rings.is_contiguous()
    assert weight.is_contiguous()
    assert rings.shape[1:] == weight.shape
    tile = tile or ConvolutionTile()
    out = torch.empty(count, channels, dtype=x.dtype, device=x.device)
    groups = len(sequences.slots)
    places = count // tile.tokens + groups
    _convolve_sequences[(triton.cdiv(channels, tile.channels), places)](
        *(x, rings, weight, out, sequences.slots, sequences.starts, sequences.contexts),
        *(x.stride(0), groups),
        channels=channels,
        kernel=len(weight),
        lanes=max(LANES, triton.next_power_of_2(groups)),
        tokens=tile.tokens,
        block=tile.channels,
        num_warps=tile.warps,
        **overlapping(x.device),
    )
    return out


@triton.jit(do_not_specialize=["groups"])  # type: ignore[untyped-decorator]
def _convolve_sequences(
    x: tl.tensor,
    rings: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    slots: tl.tensor,
    starts: tl.tensor,
    contexts: tl.tensor,
    x_stride: tl.tensor,
    groups: tl.tensor,
    channels: tl.constexpr,
    kernel: tl.constexpr,
    lanes: tl.constexpr,
    tokens: tl.constexpr,
    block: tl.constexpr,
    early: tl.constexpr,
) -> None:
    wait_for_inputs(early)
    # Sequence g with rows from b up to e has the places from b // tokens + g up to
    # e // tokens + g + 1, at most one more than it needs: no sum over sequences finds them.
    place = tl.program_id(1)
    index = tl.arange(0, lanes)
    ends = tl.load(starts + 1 + index, mask=index < groups, other=2**31 - 1)
    group = tl.sum((ends // tokens + index + 1 <= place).to(tl.int32), 0)
    if group >= groups:
        return
    begin, end = tl.load(starts + group), tl.load(starts + group + 1)
    first = begin + (place - begin // tokens - group) * tokens
    if first >= end:
        return
    channel = tl.program_id(0) * block + tl.arange(0, block)
    # The program of a sequence's first tokens alone reads the ring, and so may write it.
    if first == begin:
        ring = rings + tl.load(slots + group) * kernel * channels
        context = tl.load(contexts + group)
        _convolve_tile(
            *(x, ring, weight, out, x_stride, begin, end, first, context, channel),
            *(True, channels, kernel, tokens),
        )
        tl.debug_barrier()
        for back in tl.static_range(kernel):
            row = end - 1 - back
            kept = (channel < channels) & (row >= begin)
            at = ring + ((context + row - begin) % kernel) * channels + channel
            last = tl.load(x + row.to(tl.int64) * x_stride + channel, mask=kept)
            tl.store(at, last, mask=kept)
    else:
        _convolve_tile(
            *(x, rings, weight, out, x_stride, begin, end, first, 0, channel),
            *(False, channels, kernel, tokens),
        )


@triton.jit  # type: ignore[untyped-decorator]
def _convolve_tile(
    x: tl.tensor,
    ring: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    x_stride: tl.tensor,
    begin: tl.tensor,
    end: tl.tensor,
    first: tl.tensor,
    context: tl.tensor,
    channel: tl.tensor,
    reads_ring: tl.constexpr,
    channels: tl.constexpr,
    kernel: tl.constexpr,
    tokens: tl.constexpr,
) -> None:
    """Convolve the inputs from row `first` on; those before row `begin` lie in the ring."""
    token = first + tl.arange(0, tokens)
    is_channel = channel < channels
    total = tl.zeros((tokens, channel.shape[0]), dtype=tl.float32)
    for index in tl.static_range(kernel):
        source = token + (index - kernel + 1)
        here = ((source >= begin) & (source < end))[:, None] & is_channel[None, :]
        at = x + source.to(tl.int64)[:, None] * x_stride + channel[None, :]
        values = tl.load(at, mask=here, other=0.0).to(tl.float32)
        if reads_ring:
            position = context + source - begin
            before = ((source < begin) & (position >= 0))[:, None] & is_channel[None, :]
            at = ring + (position % kernel)[:, None] * channels + channel[None, :]
            values += tl.load(at, mask=before, other=0.0).to(tl.float32)
        factor = tl.load(weight + index * channels + channel, mask=is_channel, other=0.0)
        total += values * factor.to(tl.float32)[None, :]
    total = total * tl.sigmoid(total)
    at = out + token.to(tl.int64)[:, None] * channels + channel[None, :]
    is_token = (token < end)[:, None] & is_channel[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=is_token)
