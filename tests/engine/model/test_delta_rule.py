"""The decode step of Gated DeltaNet through the kernel is that through torch, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.model.oracle import load, write
from upcurve.engine.memory.caches import RecurrentState
from upcurve.engine.model.delta_rule import DeltaRule
from upcurve.engine.model.weights import GatedDeltaWeights


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("head", [12, 128])
def test_steps_through_the_kernel_are_those_through_torch(
    gated: bool, head: int, tmp_path: Path
) -> None:
    model = load(write(tmp_path, linear_value_head_dim=head, num_hidden_layers=1))
    weights, shapes = model.weights.layers[0].mixer, model.shapes
    assert isinstance(weights, GatedDeltaWeights)
    generator = torch.Generator().manual_seed(1)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    heads, kernel = shapes.linear_num_value_heads, len(weights.convolution)
    recurrent = normal(5, heads, shapes.linear_key_head_dim, head)
    convolution = normal(5, kernel, shapes.conv_dim)
    states = [RecurrentState(recurrent.clone(), convolution.clone()) for _ in range(2)]
    slots, lengths = torch.tensor([3, 0, 4]), torch.tensor([1, 9, 3], dtype=torch.int32)
    for _ in range(2):
        # Of each sequence all that matters: its first token, the next, and the ring once around.
        rows = [normal(3, width) for width in (shapes.conv_dim, shapes.value_dim, heads, heads)]
        options: dict[str, Any] = {"gated": gated, "quantize": False}
        (got, _), (want, _) = (
            DeltaRule(shapes, fused=fused).step(*rows, weights, state, slots, lengths, **options)
            for fused, state in zip((True, False), states, strict=True)
        )
        assert got.shape == (3, shapes.value_dim)
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
        lengths = lengths + 1
    torch.testing.assert_close(states[0].recurrent, states[1].recurrent, atol=1e-4, rtol=1e-4)
    assert torch.equal(states[0].convolution, states[1].convolution)
