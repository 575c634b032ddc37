"""Root-mean-square norms: zero-centred with residual add, and gated."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def add_norm_reference(
    residual: torch.Tensor, update: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add an update to the residual stream and normalise: one operation at a time.

    y = x / sqrt(mean(x^2) + eps) * (1 + w), in float32, cast at the very end (Qwen3.5's
    zero-centred RMSNorm).

    Args:
        residual: [T, H].
        update: [T, H], or None for the first norm of the model.
        weight: float32 [H], the zero-centred w.
        eps: added to the mean square.

    Returns:
        The new residual and the normalised rows, both [T, H] in the dtype of `residual`.
    """
    if update is not None:
        residual = residual + update
    x = residual.float()
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return residual, (x * (1.0 + weight)).to(residual.dtype)


def add_norm_fused(
    residual: torch.Tensor, update: torch.Tensor | None, one_plus_weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same with one norm call over a prepared float32 (1 + w)."""
    if update is not None:
        residual = residual + update
    normed = F.rms_norm(residual.float(), residual.shape[-1:], one_plus_weight, eps)
    return residual, normed.to(residual.dtype)


def head_norm(
    x: torch.Tensor, weight: torch.Tensor, one_plus_weight: torch.Tensor, eps: float, fused: bool
) -> torch.Tensor:
    """Normalise each head of [T, heads, head_dim], zero-centred."""
    if fused:
        return add_norm_fused(x, None, one_plus_weight, eps)[1]
    return add_norm_reference(x, None, weight, eps)[1]


def gated_norm_reference(
    x: torch.Tensor, gate: torch.Tensor, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """Normalise x [..., D] by w (not 1 + w), times silu(gate), in float32; dtype of `gate`."""
    wide = x.float()
    wide = weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps))
    return (wide * F.silu(gate.float())).to(gate.dtype)


def gated_norm_fused(
    x: torch.Tensor, gate: torch.Tensor, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """Compute the same with one norm call."""
    wide = F.rms_norm(x.float(), x.shape[-1:], weight, eps)
    return (wide * F.silu(gate.float())).to(gate.dtype)
