"""Muon for matrices, Adam for the rest; all state on the device, for a graph to hold a step."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

NOT_MUON = ("embed_tokens", "lm_head", "mlp.gate.", "shared_expert_gate", "in_proj_a", "in_proj_b")
MOMENTUM = 0.95
BETAS = (0.9, 0.98)
EPSILON = 1e-8


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return about the nearest matrices with singular values of one.

    Five Newton-Schulz steps with the coefficients of Muon (Jordan et al., 2024), bf16.

    Args:
        matrices: [N, rows, columns].
    """
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.transpose(-1, -2) if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.transpose(-1, -2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    out: torch.Tensor = x.transpose(-1, -2) if tall else x
    return out


class Optimizer:
    """One step updates all parameters of a model.

    Args:
        model: whose parameters have gradients at `step`.
        matrix_rate, other_rate: step sizes of Muon and of Adam at a schedule of 1.
    """

    def __init__(self, model: nn.Module, *, matrix_rate: float, other_rate: float) -> None:
        self._matrices: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        self._others: list[torch.Tensor] = []
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2 or "conv1d" in name or any(part in name for part in NOT_MUON):
                self._others.append(parameter)
            else:
                rows, columns = parameter.shape[-2:]
                self._matrices[rows, columns].append(parameter)
        self._momenta = {
            size: torch.cat([torch.zeros_like(p).view(-1, *size) for p in parameters])
            for size, parameters in self._matrices.items()
        }
        self._first = [torch.zeros_like(p) for p in self._others]
        self._second = [torch.zeros_like(p) for p in self._others]
        self._rates = (matrix_rate, other_rate)
        device = next(model.parameters()).device
        self.schedule = torch.zeros((), device=device)
        """What both step sizes are multiplied by; fill it before a step."""
        self._steps = torch.zeros((), device=device)

    def reset(self) -> None:
        """Forget all steps so far."""
        for state in [*self._momenta.values(), *self._first, *self._second, self._steps]:
            state.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter from its gradient."""
        self._steps += 1
        for size, parameters in self._matrices.items():
            grads = torch.cat([p.grad.view(-1, *size) for p in parameters if p.grad is not None])
            momentum = self._momenta[size]
            momentum.lerp_(grads, 1 - MOMENTUM)
            update = orthogonal(grads.lerp(momentum, MOMENTUM)).float()
            scale = self._rates[0] * max(1.0, size[0] / size[1]) ** 0.5
            update *= self.schedule * scale
            counts = [p.numel() // (size[0] * size[1]) for p in parameters]
            for parameter, part in zip(parameters, update.split(counts), strict=True):
                parameter.sub_(part.view(parameter.shape))
        grads_of = [p.grad for p in self._others if p.grad is not None]
        torch._foreach_lerp_(self._first, grads_of, 1 - BETAS[0])
        torch._foreach_mul_(self._second, BETAS[1])
        torch._foreach_addcmul_(self._second, grads_of, grads_of, 1 - BETAS[1])
        corrected = 1 - BETAS[1] ** self._steps
        roots = torch._foreach_div(self._second, corrected)
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, EPSILON)
        updates = torch._foreach_div(self._first, roots)
        torch._foreach_mul_(updates, self.schedule * self._rates[1] / (1 - BETAS[0] ** self._steps))
        torch._foreach_sub_(self._others, list(updates))
