"""The causal convolution as kernels: one step of some sequences, and many of one."""

from __future__ import annotations

import torch

from upcurve.engine.platform import tl, triton

BLOCK = 512
"""Channels of a program for a step."""
TOKENS, CHANNELS = 32, 128
"""Of a program over a sequence."""


def convolve_step_in_place(
    x: torch.Tensor, states: torch.Tensor, slots: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Convolve one input of each of B sequences, then SiLU; sums are float32.

    What is launched follows from the shapes alone. Rows may share a slot only if nobody reads it.

    Args:
        x: [B, C], channels contiguous.
        states: [slots_total, kernel - 1, C], contiguous, oldest first; those of `slots` move on.
        slots: int64 [B].
        weight: [kernel, C], contiguous, oldest first.

    Returns:
        [B, C] in the dtype of x.
    """
    batch, channels = x.shape
    assert x.stride(1) == 1
    assert states.is_contiguous()
    assert weight.is_contiguous()
    out = torch.empty(batch, channels, dtype=x.dtype, device=x.device)
    _convolve[(batch, -(-channels // BLOCK))](
        *(x, states, slots, weight, out, x.stride(0), channels),
        kernel=len(weight),
        block=BLOCK,
    )
    return out


def convolve_sequence_in_place(
    x: torch.Tensor, state: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Convolve the next T inputs of one sequence, then SiLU; sums are float32.

    Args:
        x: [T, C], channels contiguous.
        state: [kernel - 1, C], contiguous: the inputs before x, oldest first; moves on.
        weight: [kernel, C], contiguous, oldest first.

    Returns:
        [T, C] in the dtype of x.
    """
    length, channels = x.shape
    assert x.stride(1) == 1
    assert state.is_contiguous()
    assert weight.is_contiguous()
    out = torch.empty(length, channels, dtype=x.dtype, device=x.device)
    _convolve_sequence[(-(-length // TOKENS), -(-channels // CHANNELS))](
        *(x, state, weight, out, x.stride(0), length, channels),
        kernel=len(weight),
        tokens=TOKENS,
        block=CHANNELS,
    )
    kept = len(state)
    state.copy_(x[length - kept :] if length >= kept else torch.cat([state[length:], x]))
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _convolve_sequence(
    x: tl.tensor,
    state: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    x_stride: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    kernel: tl.constexpr,
    tokens: tl.constexpr,
    block: tl.constexpr,
) -> None:
    token = (tl.program_id(0) * tokens + tl.arange(0, tokens)).to(tl.int64)[:, None]
    channel = tl.program_id(1) * block + tl.arange(0, block)
    is_channel = channel < channels
    total = tl.zeros((tokens, block), dtype=tl.float32)
    for index in tl.static_range(kernel):
        # The input this far back lies in the state where the sequence does not reach so far.
        source = token + (index - kernel + 1)
        here = (source >= 0) & (source < length) & is_channel[None, :]
        before = (source < 0) & is_channel[None, :]
        new = tl.load(x + source * x_stride + channel[None, :], mask=here, other=0.0)
        old = tl.load(
            state + (source + kernel - 1) * channels + channel[None, :], mask=before, other=0.0
        )
        factor = tl.load(weight + index * channels + channel, mask=is_channel, other=0.0)
        total += (new.to(tl.float32) + old.to(tl.float32)) * factor.to(tl.float32)[None, :]
    total = total * tl.sigmoid(total)
    at = out + token * channels + channel[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=(token < length) & is_channel[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def _convolve(
    x: tl.tensor,
    states: tl.tensor,
    slots: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    x_stride: tl.tensor,
    channels: tl.tensor,
    kernel: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * block + tl.arange(0, block)
    inside = channel < channels
    state = states + tl.load(slots + row) * (kernel - 1) * channels + channel
    new = tl.load(x + row * x_stride + channel, mask=inside, other=0.0)
    last: tl.constexpr = kernel - 1
    total = new.to(tl.float32) * tl.load(
        weight + last * channels + channel, mask=inside, other=0.0
    ).to(tl.float32)
    for index in tl.static_range(kernel - 1):
        old = tl.load(state + index * channels, mask=inside, other=0.0)
        factor = tl.load(weight + index * channels + channel, mask=inside, other=0.0)
        total += old.to(tl.float32) * factor.to(tl.float32)
        if index > 0:
            tl.store(state + (index - 1) * channels, old, mask=inside)
    if kernel > 1:
        tl.store(state + (kernel - 2) * channels, new, mask=inside)
    total = total * tl.sigmoid(total)
    tl.store(out + row * channels + channel, total.to(out.dtype.element_ty), mask=inside)
