"""Experts that tests multiply by, and what they are worth in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tests.engine.kernels.operands import exact, normal
from upcurve.engine.kernels.block_scaled import quantize_blocks


@dataclass(frozen=True, slots=True)
class Experts:
    gate_up: torch.Tensor
    down: torch.Tensor
    gate_up_scale: torch.Tensor | None = None
    down_scale: torch.Tensor | None = None

    @classmethod
    def draw(cls, count: int, *, hidden: int, width: int, fp8: bool = False) -> Experts:
        gate_up = normal(count, 2 * width, hidden, seed=1) * hidden**-0.5
        down = normal(count, hidden, width, seed=2) * width**-0.5
        if not fp8:
            return cls(gate_up, down)
        (gate_up, gate_up_scale), (down, down_scale) = map(quantize_blocks, (gate_up, down))
        for scale in (gate_up_scale, down_scale):
            # So that a scale that is taken from another place shows.
            scale *= torch.linspace(0.5, 2, scale.numel()).view(scale.shape)
        return cls(gate_up, down, gate_up_scale, down_scale)

    def all(self) -> tuple[torch.Tensor | None, ...]:
        return self.gate_up, self.down, self.gate_up_scale, self.down_scale

    def forget(self, wanted: torch.Tensor) -> None:
        """Fill the experts that nobody wants with NaN: they must not be looked at."""
        for expert in set(range(len(self.down))) - set(wanted.flatten().tolist()):
            for weight, scale in (
                (self.gate_up, self.gate_up_scale),
                (self.down, self.down_scale),
            ):
                # 0x7f is NaN in float8_e4m3fn.
                (weight if scale is None else weight.view(torch.uint8))[expert] = (
                    torch.nan if scale is None else 0x7F
                )

    def gated(self, x: torch.Tensor, expert: int) -> torch.Tensor:
        """Return silu(gate x) * (up x) of x [T, H]: [T, I] in float64."""
        gate, up = (x.double() @ _exact(self.gate_up, self.gate_up_scale, expert).t()).chunk(2, -1)
        return F.silu(gate) * up

    def lowered(self, inner: torch.Tensor, expert: int) -> torch.Tensor:
        """Return the second product of inner [T, I]: [T, H] in float64."""
        return inner.double() @ _exact(self.down, self.down_scale, expert).t()


def _exact(weight: torch.Tensor, scale: torch.Tensor | None, expert: int) -> torch.Tensor:
    if scale is None:
        return weight[expert].double()
    return exact(weight[expert], scale[expert], 128)


def choose(tokens: int, experts: int, choices: int, seed: int = 0) -> torch.Tensor:
    """Draw experts of tokens: int32 [T, K], no expert twice."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(tokens, experts, generator=generator).topk(choices).indices.int()


def by_expert(ids: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return slots sorted by expert, int32 [T * K], and the end of each expert, int32 [E]."""
    order = torch.sort(ids.flatten(), stable=True).indices.int()
    return order, torch.bincount(ids.flatten(), minlength=experts).cumsum(0).int()
