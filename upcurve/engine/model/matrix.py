"""A weight matrix in the format in which it is multiplied: plain, or FP8 with a scale per block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from upcurve.engine.kernels import block_scaled, matrix_vector
from upcurve.engine.kernels.block_scaled import BLOCK, FP8
from upcurve.engine.kernels.quantized import QuantizedRows

PIECE = 2**26
"""Elements that are quantised at a time, about: bounds the memory that this takes."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """One weight matrix [N, K], or one per expert [E, N, K].

    The format of FP8 checkpoints (DeepSeek-V3 technical report, arXiv 2412.19437, section 3.3.2):
    an element is its float8_e4m3fn value times the float32 scale of its block of 128 x 128.
    """

    weight: torch.Tensor
    """[..., N, K], float8_e4m3fn where `scale` is given."""
    scale: torch.Tensor | None
    """float32 [..., ceil(N / 128), ceil(K / 128)]; None where the weight is plain."""
    parts: tuple[int, ...]
    """Rows of each checkpoint matrix that is stacked here; their sum is N."""

    @classmethod
    def empty(
        cls,
        parts: tuple[int, ...],
        width: int,
        *,
        experts: int | None = None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Matrix:
        """Allocate a matrix, with its scales where `dtype` is float8_e4m3fn.

        Where a part ends inside a block, `Rows.fill` reads what is there: that one begins as zeros.
        """
        lead = () if experts is None else (experts,)
        count = sum(parts)
        if dtype != FP8:
            return cls(torch.empty(*lead, count, width, device=device, dtype=dtype), None, parts)
        new = torch.zeros if any(part % BLOCK for part in parts[:-1]) else torch.empty
        scale = (*lead, _blocks(count), _blocks(width))
        return cls(
            new(*lead, count, width, device=device, dtype=dtype),
            new(scale, device=device, dtype=torch.float32),
            parts,
        )

    def __getitem__(self, experts: int | slice) -> Matrix:
        """Return the matrix of one expert, or those of several, as views."""
        scale = None if self.scale is None else self.scale[experts]
        return Matrix(self.weight[experts], scale, self.parts)

    def multiply(self, x: torch.Tensor, quantized: QuantizedRows | None = None) -> torch.Tensor:
        """Return x [T, K] times the transpose of a [N, K] matrix: [T, N] in the dtype of x.

        `quantized` is x in FP8 where that is known already.
        """
        if self.scale is None:
            return matrix_vector.linear(x, self.weight)
        return block_scaled.linear(x, self.weight, self.scale, quantized)

    def multiply_shares(
        self, x: torch.Tensor, quantized: QuantizedRows | None = None
    ) -> torch.Tensor:
        """Return the same, or float32 [T, S, N], to be summed over S, where that is faster."""
        if self.scale is None:
            return matrix_vector.linear(x, self.weight)
        return block_scaled.linear_shares(x, self.weight, self.scale, quantized)

    def multiply_parts(
        self, x: torch.Tensor, quantized: QuantizedRows | None = None, *, at_once: bool
    ) -> tuple[torch.Tensor, ...]:
        """Return the product with each part: of one large product, or of one product each."""
        if at_once:
            return torch.split(self.multiply(x, quantized), list(self.parts), dim=-1)
        return tuple(self._multiply_rows(x, *bounds) for bounds in self.bounds())

    def bounds(self) -> list[tuple[int, int]]:
        """Return the first row and the row after the last of each part."""
        ends = [sum(self.parts[: i + 1]) for i in range(len(self.parts))]
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _multiply_rows(self, x: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        if self.scale is None:
            return F.linear(x, self.weight[start:stop])
        # Rows that share a block with the part before are multiplied too, and dropped.
        rows, blocks = _whole_blocks(start, stop)
        product = block_scaled.linear(x, self.weight[rows], self.scale[blocks])
        return product[:, start - rows.start :]


@dataclass(frozen=True, slots=True)
class Rows:
    """Where one FP8 matrix of a checkpoint (or one per expert) goes: rows of a quantised one."""

    matrix: Matrix
    start: int
    stop: int

    @property
    def shape(self) -> torch.Size:
        """[..., stop - start, K]."""
        *lead, _, width = self.matrix.weight.shape
        return torch.Size([*lead, self.stop - self.start, width])

    @property
    def scale_shape(self) -> torch.Size:
        """[..., ceil(rows / 128), ceil(K / 128)]: of the scales of a checkpoint matrix."""
        *lead, rows, width = self.shape
        return torch.Size([*lead, _blocks(rows), _blocks(width)])

    def __getitem__(self, experts: int | slice) -> Rows:
        """Return the same rows of one or some of the experts."""
        return Rows(self.matrix[experts], self.start, self.stop)

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the views of weight and scale that hold the rows, in whole blocks."""
        assert self.matrix.scale is not None
        rows, blocks = _whole_blocks(self.start, self.stop)
        end = min(blocks.stop * BLOCK, self.matrix.weight.shape[-2])
        return self.matrix.weight[..., rows.start : end, :], self.matrix.scale[..., blocks, :]

    def fill(self, values: torch.Tensor) -> None:
        """Quantise values of this shape into the rows.

        A block that is shared with a neighbouring part gets one scale for both: what is there
        already is quantised again with it. Sizes of published models share no block.
        """
        weight, scale = self.tensors()
        values = values.to(weight.device)
        if not self._aligned():
            whole = block_scaled.dequantize_blocks(weight, scale, torch.float32)
            first = self.start % BLOCK
            whole[..., first : first + self.stop - self.start, :] = values
            values = whole
        quantized, scales = block_scaled.quantize_blocks(values)
        weight.copy_(quantized)
        scale.copy_(scales)

    def fill_quantized(self, weight: torch.Tensor, scale: torch.Tensor) -> None:
        """Store float8_e4m3fn values of this shape with scales of `scale_shape`.

        They are kept bit by bit, but where a block is shared: there they are quantised again.
        """
        if self._aligned():
            weights, scales = self.tensors()
            weights.copy_(weight)
            scales.copy_(scale)
        else:
            device = self.matrix.weight.device
            weight, scale = weight.to(device), scale.to(device, torch.float32)
            self.fill(block_scaled.dequantize_blocks(weight, scale, torch.float32))

    def _aligned(self) -> bool:
        last = self.stop == self.matrix.weight.shape[-2]
        return self.start % BLOCK == 0 and (last or self.stop % BLOCK == 0)


def pieces(shape: torch.Size) -> list[slice]:
    """Return slices of the first dimension of a tensor of experts; one of everything else."""
    if len(shape) < 3:
        return [slice(None)]
    step = max(1, PIECE // shape[1:].numel())
    return [slice(start, start + step) for start in range(0, shape[0], step)]


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _whole_blocks(start: int, stop: int) -> tuple[slice, slice]:
    """Return rows that begin with a block and end at `stop`, and the blocks they lie in."""
    first = start // BLOCK
    return slice(first * BLOCK, stop), slice(first, _blocks(stop))
