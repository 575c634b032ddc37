"""The gated delta rule: a matrix state per value head that decays, is corrected, and is read.

    S <- alpha S;  d = beta (v - S^T k);  S <- S + k d^T;  o = S^T q

(Yang et al., "Gated Delta Networks", 2024.) Everything here is float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

CHUNK = 64


def gates(
    a: torch.Tensor, b: torch.Tensor, a_log: torch.Tensor, dt_bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log decay g = -exp(A_log) softplus(a + dt_bias) and beta = sigmoid(b).

    Args:
        a: [T, value_heads].
        b: [T, value_heads].
        a_log: float32 [value_heads].
        dt_bias: float32 [value_heads].

    Returns:
        Both float32 [T, value_heads].
    """
    return -a_log.exp() * F.softplus(a.float() + dt_bias), torch.sigmoid(b.float())


def unit(x: torch.Tensor) -> torch.Tensor:
    """Divide by the length over the last dimension, in float32: x / sqrt(sum(x^2) + 1e-6)."""
    x = x.float()
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)


def recurrence_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the rule token by token over one sequence.

    Args:
        q: [T, heads, Dk], scaled.
        k: [T, heads, Dk].
        v: [T, heads, Dv].
        g: [T, heads], log decay.
        beta: [T, heads].
        state: [heads, Dk, Dv].

    Returns:
        Outputs [T, heads, Dv] and the new state.
    """
    states = state.unsqueeze(0).clone(memory_format=torch.contiguous_format)
    outs = [
        step(q[t, None], k[t, None], v[t, None], g[t, None], beta[t, None], states)
        for t in range(len(q))
    ]
    return torch.cat(outs), states[0]


def step(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    states: torch.Tensor,
) -> torch.Tensor:
    """Run the rule for one token of each of B sequences.

    Args:
        q: [B, heads, Dk], scaled.
        k: [B, heads, Dk].
        v: [B, heads, Dv].
        g: [B, heads], log decay.
        beta: [B, heads].
        states: contiguous [B, heads, Dk, Dv]; changed in place.

    Returns:
        Outputs [B, heads, Dv].
    """
    flat = states.flatten(0, 1).mul_(g.exp().reshape(-1, 1, 1))
    key = k.reshape(len(flat), 1, -1)
    correction = torch.baddbmm(v.reshape(len(flat), 1, -1), key, flat, alpha=-1)
    flat.baddbmm_(key.transpose(1, 2), correction.mul_(beta.reshape(-1, 1, 1)))
    return torch.bmm(q.reshape(len(flat), 1, -1), flat).view(v.shape)


def chunked(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the rule over one sequence in chunks of 64 tokens: matrix products instead of steps.

    Arguments and results as `recurrence_reference`. With gamma the running sum of g in a chunk and
    D_ij = exp(gamma_i - gamma_j) for i >= j:

        A = strictly lower part of (beta K K^T) * D,  T = (I + A)^-1
        U = T (beta V),  W = T (beta exp(gamma) K),  V' = U - W S
        O = (exp(gamma) Q) S + (Q K^T * D) V'
        S <- exp(gamma_C) S + (exp(gamma_C - gamma) K)^T V'
    """
    length, heads, _ = q.shape
    padding = -length % CHUNK
    chunks = (length + padding) // CHUNK

    # Padding with g = 0 and beta = 0 leaves the state as it is.
    def split(x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x.movedim(0, 1), (0, 0) * (x.dim() - 2) + (0, padding))
        return x.reshape(heads, chunks, CHUNK, *x.shape[2:])

    q, k, v, g, beta = split(q), split(k), split(v), split(g), split(beta).unsqueeze(-1)
    gamma = g.cumsum(-1)
    lower = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).tril()
    # Masked before the exponential: above the diagonal it would overflow.
    difference = (gamma.unsqueeze(-1) - gamma.unsqueeze(-2)).masked_fill(~lower, -torch.inf)
    decay = difference.exp()
    grown = gamma.exp().unsqueeze(-1)
    beta_k = beta * k
    system = (beta_k @ k.transpose(-1, -2) * decay).tril(-1)
    solved = torch.linalg.solve_triangular(
        system, torch.cat([beta * v, beta_k * grown], -1), upper=False, unitriangular=True
    )
    u, w = solved.split([v.shape[-1], k.shape[-1]], -1)
    within = q @ k.transpose(-1, -2) * decay
    q = q * grown
    k = k * (gamma[..., -1:] - gamma).exp().unsqueeze(-1)
    last = gamma[..., -1].exp()[..., None, None]
    outs = []
    for i in range(chunks):
        new_v = u[:, i] - w[:, i] @ state
        outs.append(q[:, i] @ state + within[:, i] @ new_v)
        state = last[:, i] * state + k[:, i].transpose(-1, -2) @ new_v
    out = torch.stack(outs, 1).reshape(heads, chunks * CHUNK, -1)[:, :length]
    return out.movedim(0, 1), state
