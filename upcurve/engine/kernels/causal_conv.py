"""Causal depthwise convolution over time, then SiLU, with the last inputs kept as state.

The state of a sequence is a ring, [kernel, C]: the input at position p of the sequence lies in row
p % kernel. A step at position p reads the rows of the kernel - 1 positions before it and writes a
row that nobody reads in that step, so that programs which share channels need not wait for each
other. What lies before position 0 counts as zeros, whatever the ring holds there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def convolve_sequence(
    x: torch.Tensor, ring: torch.Tensor, context: int, weight: torch.Tensor
) -> torch.Tensor:
    """Convolve the next T inputs of one sequence.

    Args:
        x: [T, C].
        ring: [kernel, C], the last inputs before x; changed in place.
        context: inputs before x.
        weight: [kernel, C], oldest first.

    Returns:
        silu(convolution) [T, C].
    """
    length, kernel = len(x), len(weight)
    before = torch.arange(context - kernel + 1, context, device=x.device)
    past = ring[before % kernel].masked_fill((before < 0).unsqueeze(-1), 0)
    window = torch.cat([past, x])
    out = window[:length] * weight[0]
    for offset in range(1, kernel):
        out = torch.addcmul(out, window[offset : offset + length], weight[offset])
    kept = min(length, kernel)
    positions = torch.arange(context + length - kept, context + length, device=x.device)
    ring[positions % kernel] = x[length - kept :]
    return F.silu(out)


def convolve_step(
    x: torch.Tensor,
    rings: torch.Tensor,
    slots: torch.Tensor,
    lengths: torch.Tensor,
    weight: torch.Tensor,
) -> torch.Tensor:
    """Convolve one input of each of B sequences.

    Args:
        x: [B, C].
        rings: [slots_total, kernel, C]; those of `slots` are changed in place.
        slots: int64 [B].
        lengths: int32 [B]: inputs of each sequence with this one.
        weight: [kernel, C], oldest first.

    Returns:
        silu(convolution) [B, C].
    """
    kernel = len(weight)
    back = torch.arange(1 - kernel, 1, device=x.device)
    positions = lengths.long().unsqueeze(1) - 1 + back
    rings[slots, positions[:, -1] % kernel] = x
    window = rings[slots.unsqueeze(1), positions % kernel]
    window = window.masked_fill((positions < 0).unsqueeze(-1), 0)
    return F.silu((window * weight).sum(1))
