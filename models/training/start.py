"""Values of the parameters before training."""

from __future__ import annotations

import math

import torch

from models.training.network import Network

ZERO = ("out_proj.weight", "o_proj.weight", "down_proj.weight", "down_proj", "lm_head.weight")
"""Matrices that write to the residual stream, and the head, start at zero."""


@torch.no_grad()
def start(network: Network, seed: int) -> None:
    """Draw every parameter; norms start at one."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        value = torch.zeros(parameter.shape)
        if name.endswith("A_log"):
            value.uniform_(1.0, 16.0, generator=generator).log_()
        elif name.endswith("dt_bias"):
            step = value.uniform_(math.log(1e-3), math.log(1e-1), generator=generator).exp_()
            value = step + torch.log(-torch.expm1(-step))
        elif name.endswith("linear_attn.norm.weight"):
            value.fill_(1.0)
        elif name.endswith("conv1d.weight"):
            value.uniform_(-0.5, 0.5, generator=generator)
        elif name.endswith("embed_tokens.weight"):
            value.normal_(0.0, 1.0, generator=generator)
        elif parameter.dim() > 1 and not name.endswith(ZERO):
            value.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
        parameter.copy_(value)
