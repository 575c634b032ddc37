"""What tests of kernels multiply and normalise, and what it is worth in float64."""

from __future__ import annotations

import torch

FP8 = torch.float8_e4m3fn


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def among_nan(x: torch.Tensor) -> torch.Tensor:
    """The same rows between NaN, and so with a stride that is not their length."""
    wide = torch.full((len(x) + 2, x.shape[1] + 16), torch.nan).to(x.dtype)
    wide.view(torch.uint8)[1:-1, : x.shape[1] * x.element_size()] = x.view(torch.uint8)
    return wide[1:-1, : x.shape[1]]


def exact(values: torch.Tensor, scale: torch.Tensor, rows: int) -> torch.Tensor:
    """Dequantise [..., N, K] in float64: a scale is that of so many rows and 128 columns."""
    scales = scale.double().repeat_interleave(rows, -2).repeat_interleave(128, -1)
    return values.double() * scales[..., : values.shape[-2], : values.shape[-1]]
