"""Rows in FP8 beside their scales: what producers emit and products take."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """T rows of K channels: an element is its value times the scale of its 128 channels."""

    values: torch.Tensor
    """float8_e4m3fn [T, K], K contiguous."""
    scale: torch.Tensor
    """float32 [T, ceil(K / 128)], T contiguous: a step of a product reads one column."""

    @classmethod
    def empty(cls, count: int, width: int, device: torch.device) -> QuantizedRows:
        """Allocate, uninitialised."""
        scale = torch.empty(-(-width // 128), count, dtype=torch.float32, device=device)
        values = torch.empty(count, width, dtype=torch.float8_e4m3fn, device=device)
        return cls(values, scale.t())
