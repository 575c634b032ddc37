"""How much is held beside the weights while they are filled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.engine.model.fp8.small import fp8_config
from tests.engine.model.oracle import CPU
from upcurve.engine.model import matrix
from upcurve.engine.model.checkpoint import fill_dummy, write_checkpoint
from upcurve.engine.model.loader import load_weights
from upcurve.engine.model.matrix import Rows
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.weight_map import weight_map
from upcurve.engine.model.weights import ModelWeights


def place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Largest(TorchDispatchMode):
    """Keeps the bytes of the largest new tensor that an operation returns."""

    def __init__(self, weights: ModelWeights) -> None:
        super().__init__()
        self.known = {
            place(each)
            for target in weight_map(weights).values()
            for each in (target.tensors() if isinstance(target, Rows) else (target,))
        }
        self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        sources = {place(each) for each in args if isinstance(each, torch.Tensor)}
        if isinstance(out, torch.Tensor):
            store = out.untyped_storage()
            if place(out) not in self.known | sources:
                self.bytes = max(self.bytes, store.nbytes())
        return out


@pytest.mark.parametrize("way", ["dummy", "stream"])
def test_no_layer_of_experts_is_held_beside_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    write_checkpoint(tmp_path, fp8_config(num_experts=24), seed=1)
    # The largest single matrix is that of q, k and v, padded to whole blocks while quantised.
    expert, largest_matrix = 2 * 128 * 160, 512 * 256
    monkeypatch.setattr(matrix, "PIECE", expert)
    shapes = ModelShapes.from_folder(tmp_path)
    weights = ModelWeights.empty(shapes, CPU, torch.float32, quantized=True)
    with Largest(weights) as largest:
        if way == "dummy":
            fill_dummy(weights, seed=1)
        else:
            load_weights(tmp_path, weights)
    assert expert * 4 <= largest.bytes <= largest_matrix * 4
    # All experts of a layer are beyond the bound even in FP8.
    assert 24 * expert > largest_matrix * 4
