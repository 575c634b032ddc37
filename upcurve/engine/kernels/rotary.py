"""Rotary position embedding on the leading dimensions of each head."""

from __future__ import annotations

import torch


def rotary_table(
    positions: torch.Tensor, rotary_dim: int, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cos and sin, float32 [T, 1, rotary_dim], for int64 positions [T].

    For text the three rows of the multimodal rotary embedding are equal, so it is the plain one.
    """
    exponent = torch.arange(0, rotary_dim, 2, device=positions.device, dtype=torch.float32)
    frequency = 1.0 / theta ** (exponent / rotary_dim)
    angles = positions.float().unsqueeze(-1) * frequency
    angles = torch.cat([angles, angles], -1).unsqueeze(1)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the first dimensions of x [T, heads, head_dim], in pairs (i, i + rotary_dim / 2)."""
    width = cos.shape[-1]
    head, rest = x[..., :width], x[..., width:]
    low, high = head.chunk(2, dim=-1)
    turned = torch.cat([-high, low], -1)
    return torch.cat([head * cos.to(x.dtype) + turned * sin.to(x.dtype), rest], -1)
