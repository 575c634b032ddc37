"""Root-mean-square norms: zero-centred with residual add, and gated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from upcurve.engine.kernels import block_scaled, block_scaled_rows, rms_norm_kernels
from upcurve.engine.kernels.peers import Peers
from upcurve.engine.kernels.quantized import GatedRows, QuantizedRows
from upcurve.engine.platform import runs_kernels


@dataclass(frozen=True, slots=True)
class Normed:
    """The residual stream, and its rows as the next block takes them."""

    residual: torch.Tensor
    """[T, H]."""
    rows: torch.Tensor
    """[T, H], normalised."""
    quantized: QuantizedRows | None
    """The same in FP8, where that was asked for."""


def add_norm(
    residual: torch.Tensor,
    update: torch.Tensor | None,
    weight: torch.Tensor,
    eps: float,
    *,
    mixing: torch.Tensor | None = None,
    quantize: bool = False,
    peers: Peers | None = None,
) -> Normed:
    """Add what is still to be summed to the residual stream and normalise, at once.

    Sums are float32, and rounded once; the residual stream is changed in place on a GPU.

    Args:
        residual: [T, H], contiguous.
        update: [T, H] or [T, P, H], H contiguous; None for the first norm of the model.
        weight: float32 [H], the zero-centred w.
        eps: added to the mean square.
        mixing: float32 [T, P], contiguous: weights of the parts; each counts fully where None.
        quantize: give the rows in FP8 too.
        peers: on a GPU, the ranks over which the update is summed too, rounded once on each; what
            has the weight 0 is not read then.
    """
    if runs_kernels(residual.device):
        return Normed(
            *rms_norm_kernels.add_norm(
                *(residual, update, weight, eps, mixing), quantize=quantize, peers=peers
            )
        )
    assert peers is None
    if update is not None and update.dim() == 3:
        wide = update.float()
        update = wide.sum(1) if mixing is None else torch.bmm(mixing.unsqueeze(1), wide).squeeze(1)
        update = update.to(residual.dtype)
    residual, rows = add_norm_fused(residual, update, 1.0 + weight, eps)
    return Normed(residual, rows, _quantized(rows) if quantize else None)


def gated_norm(
    x: torch.Tensor,
    gate: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    quantize: bool = False,
    into: GatedRows | None = None,
) -> tuple[torch.Tensor, QuantizedRows | None]:
    """Normalise each head of x [T, heads, D] by w (not 1 + w), times silu(gate), in float32.

    Args:
        x: [T, heads, D], contiguous.
        gate: [T, heads, D], heads and D contiguous.
        weight: float32 [D].
        eps: added to the mean square.
        quantize: give the rows in FP8 too.
        into: where a kernel writes both; new where None.

    Returns:
        [T, heads * D] in the dtype of gate; and in FP8.
    """
    if runs_kernels(x.device):
        rows, quantized = rms_norm_kernels.gated_norm(
            x, gate, weight, eps, quantize=quantize, into=into
        )
    else:
        rows, quantized = gated_norm_fused(x, gate, weight, eps).flatten(1), None
    if quantize and quantized is None:
        quantized = _quantized(rows)
    return rows, quantized


def _quantized(rows: torch.Tensor) -> QuantizedRows:
    if runs_kernels(rows.device):
        return block_scaled_rows.quantize(rows)
    return QuantizedRows(*block_scaled.quantize_rows(rows))


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
