"""The gated delta rule over whole sequences, in chunks, with gradients."""

from __future__ import annotations

from typing import Any

import torch

CHUNK = 64
BASE = 8


class _UnitLowerInverse(torch.autograd.Function):
    """(I + a)^-1 of strictly lower triangular a; the gradient is -Xt g Xt."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor) -> torch.Tensor:
        inverse = _inverse(a)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (inverse,) = ctx.saved_tensors
        turned = inverse.transpose(-1, -2)
        grad: torch.Tensor = -(turned @ grads[0] @ turned).tril(-1)
        return grad


def _inverse(a: torch.Tensor) -> torch.Tensor:
    """Invert I + a by halves; blocks of 8 by the finite series of a nilpotent matrix."""
    size = a.shape[-1]
    if size <= BASE:
        one = torch.eye(size, dtype=a.dtype, device=a.device)
        square = a @ a
        return (one - a) @ (one + square) @ (one + square @ square)
    half = size // 2
    top, bottom = _inverse(torch.stack([a[..., :half, :half], a[..., half:, half:]])).unbind()
    off = -(bottom @ a[..., half:, :half] @ top)
    upper = torch.cat([top, torch.zeros_like(off)], -1)
    return torch.cat([upper, torch.cat([off, bottom], -1)], -2)


def delta_rule(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, decay: torch.Tensor, beta: torch.Tensor
) -> torch.Tensor:
    """Return the output of the gated delta rule from an empty state.

    The chunked form of "Gated Delta Networks" (Yang et al., 2024), as transformers computes it.

    Args:
        q: float32 [B, S, heads, Dk], normalised and scaled; S a multiple of 64.
        k: the same, normalised.
        v: float32 [B, S, heads, Dv].
        decay: float32 [B, S, heads], logarithm of the factor on the state, at most 0.
        beta: float32 [B, S, heads], strength of each write.

    Returns:
        float32 [B, S, heads, Dv].
    """
    batch, length, heads, _ = q.shape
    chunks = length // CHUNK

    def cut(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).reshape(batch * heads, chunks, CHUNK, -1)

    q, k, v = cut(q), cut(k), cut(v)
    beta, gamma = cut(beta), cut(decay).squeeze(-1).cumsum(-1)
    lower = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).tril()
    difference = gamma.unsqueeze(-1) - gamma.unsqueeze(-2)
    pairs = difference.masked_fill(~lower, -torch.inf).exp()
    grown = gamma.exp().unsqueeze(-1)
    beta_k = beta * k
    system = (beta_k @ k.transpose(-1, -2) * pairs).tril(-1)
    inverse: torch.Tensor = _UnitLowerInverse.apply(system)  # type: ignore[no-untyped-call]
    u, w = inverse @ (beta * v), inverse @ (beta_k * grown)
    within = q @ k.transpose(-1, -2) * pairs
    q = q * grown
    k = (k * (gamma[..., -1:] - gamma).exp().unsqueeze(-1)).transpose(-1, -2)
    last = gamma[..., -1].exp()[..., None, None]
    state = q.new_zeros(batch * heads, k.shape[-2], v.shape[-1])
    outs = []
    for i in range(chunks):
        fresh = u[:, i] - w[:, i] @ state
        outs.append(q[:, i] @ state + within[:, i] @ fresh)
        state = last[:, i] * state + k[:, i] @ fresh
    out = torch.stack(outs, 1).reshape(batch, heads, length, -1)
    return out.transpose(1, 2).contiguous()
