"""Rows in FP8 beside their scales: what producers emit and products take."""

from __future__ import annotations

from dataclasses import dataclass

import torch

GRAIN = 16
"""Rows are allocated in multiples of it: libraries take few other counts, and kernels are compiled
once for all."""


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """T rows of K channels: an element is its value times the scale of its 128 channels."""

    values: torch.Tensor
    """float8_e4m3fn [T, K], K contiguous."""
    scale: torch.Tensor
    """float32 [T, ceil(K / 128)], T contiguous: a step of a product reads one column."""

    @classmethod
    def empty(cls, count: int, width: int, device: torch.device) -> QuantizedRows:
        """Allocate, uninitialised, with rows behind the last up to a multiple of `GRAIN`."""
        whole = -(-count // GRAIN) * GRAIN
        scale = torch.empty(-(-width // 128), whole, dtype=torch.float32, device=device)
        values = torch.empty(whole, width, dtype=torch.float8_e4m3fn, device=device)
        return cls(values[:count], scale.t()[:count])

    def part(self, start: int, stop: int) -> QuantizedRows:
        """Return some of the rows, as views."""
        return QuantizedRows(self.values[start:stop], self.scale[start:stop])

    def whole(self) -> QuantizedRows:
        """Return the same with the rows behind the last, of which nothing is known, if any."""
        count = self.scale.stride(1)
        return QuantizedRows(
            self.values.as_strided((count, self.values.shape[1]), self.values.stride()),
            self.scale.as_strided((count, self.scale.shape[1]), self.scale.stride()),
        )


@dataclass(frozen=True, slots=True)
class GatedRows:
    """What a mixer gives its output projection: rows, and the same in FP8 where it takes that."""

    rows: torch.Tensor
    """[T, K]."""
    quantized: QuantizedRows | None

    @classmethod
    def empty(
        cls, count: int, width: int, dtype: torch.dtype, device: torch.device, *, quantize: bool
    ) -> GatedRows:
        """Allocate, uninitialised."""
        rows = torch.empty(count, width, dtype=dtype, device=device)
        return cls(rows, QuantizedRows.empty(count, width, device) if quantize else None)

    def part(self, start: int, stop: int) -> GatedRows:
        """Return some of the rows, as views."""
        part = None if self.quantized is None else self.quantized.part(start, stop)
        return GatedRows(self.rows[start:stop], part)
