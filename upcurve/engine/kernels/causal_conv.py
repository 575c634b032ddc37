"""Causal depthwise convolution over time, then SiLU, with the last inputs kept as state."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def convolve_sequence(
    x: torch.Tensor, state: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Convolve the next T inputs of one sequence.

    Args:
        x: [T, C].
        state: [kernel - 1, C], the inputs before x, oldest first.
        weight: [kernel, C], oldest first.

    Returns:
        silu(convolution) [T, C], and the new state [kernel - 1, C].
    """
    length = len(x)
    window = torch.cat([state, x])
    out = window[:length] * weight[0]
    for offset in range(1, len(weight)):
        out = torch.addcmul(out, window[offset : offset + length], weight[offset])
    return F.silu(out), window[length:]


def convolve_step(
    x: torch.Tensor, states: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Convolve one input of each of B sequences.

    Args:
        x: [B, C].
        states: [B, kernel - 1, C].
        weight: [kernel, C].

    Returns:
        silu(convolution) [B, C], and the new states [B, kernel - 1, C].
    """
    window = torch.cat([states, x.unsqueeze(1)], dim=1)
    return F.silu((window * weight).sum(1)), window[:, 1:]
