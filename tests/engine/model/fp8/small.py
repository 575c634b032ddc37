"""A small model in FP8, and how two models are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.engine.model.oracle import CPU, in_pieces, new_memory, random_ids, tiny_config
from upcurve.engine.errors import EngineInputError
from upcurve.engine.model.matrix import Rows
from upcurve.engine.model.model import Model, load_model
from upcurve.engine.model.weight_map import weight_map
from upcurve.engine.model.weights import ModelWeights
from upcurve.engine.switches import Switches

Tensors = dict[str, torch.Tensor]
IDS = random_ids(40, seed=3)
PIECES = [30, 1, 1, 8]
LAYER = "model.layers.0."
EXPERT = f"{LAYER}mlp.experts.2."
KEYS = "model.layers.1.self_attn.k_proj.weight"


def fp8_config(**changes: Any) -> dict[str, Any]:
    """Return a small config whose stacked matrices share no block, as in published models."""
    return tiny_config(
        **{
            "hidden_size": 160,
            "num_hidden_layers": 3,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "head_dim": 64,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
            "linear_num_key_heads": 4,
            "linear_num_value_heads": 8,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 128,
            "shared_expert_intermediate_size": 128,
            **changes,
        }
    )


def load(folder: Path, off: str = "", dtype: torch.dtype = torch.float32, **options: Any) -> Model:
    switches = Switches.without(off)
    return load_model(folder, device=CPU, dtype=dtype, switches=switches, **options)


def run(model: Model) -> torch.Tensor:
    return in_pieces(model, new_memory(model), IDS, PIECES)


def content(model: Model) -> Tensors:
    """Return all parameters by name; of quantised ones weight and scale."""
    out: Tensors = {}
    for name, target in weight_map(model.weights).items():
        if isinstance(target, Rows):
            weight, scale = target.tensors()
            out |= {name: weight.float(), f"{name}_scale": scale}
        else:
            out[name] = target
    return out


def same(one: Model, other: Model) -> None:
    first, second = content(one), content(other)
    assert first.keys() == second.keys()
    for name, each in first.items():
        assert torch.equal(each, second[name]), name


def relative(got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
    """Return the error of each token's logits, in units of their own size."""
    return (got - want).norm(dim=-1) / want.norm(dim=-1)


def save(folder: Path, tensors: Tensors, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({name: each.contiguous() for name, each in tensors.items()}, file(folder))
    return folder


def file(folder: Path) -> Path:
    return folder / "model.safetensors"


def error(folder: Path, **options: Any) -> str:
    with pytest.raises(EngineInputError) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def exact(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Dequantise in float64, each element by the scale at its row and column divided by 128."""
    row, column = (torch.arange(size) // 128 for size in weight.shape[-2:])
    return weight.double() * scale.double()[..., row, :][..., column]


def dequantized(model: Model) -> Model:
    """Return the plain model of the same values."""
    weights = ModelWeights.empty(model.shapes, CPU, torch.float32)
    table = weight_map(model.weights)
    for name, target in weight_map(weights).items():
        source = table[name]
        if isinstance(source, Rows):
            whole = exact(source.matrix.weight, source.matrix.scale)
            source = whole[..., source.start : source.stop, :]
        target.copy_(source)
    weights.prepare()
    return Model(model.shapes, weights, model.switches, torch.float32)


def fused(tensors: Tensors) -> Tensors:
    """Stack the experts, values and scales, as transformers names them."""
    out = {name: each for name, each in tensors.items() if ".experts." not in name}
    for layer in range(3):
        stem = f"model.layers.{layer}.mlp.experts."
        for suffix, end in (("weight", ""), ("weight_scale_inv", "_scale_inv")):
            single = [
                [tensors[f"{stem}{expert}.{kind}_proj.{suffix}"] for kind in ("gate", "up", "down")]
                for expert in range(6)
            ]
            both = [torch.cat([gate.float(), up.float()]) for gate, up, _ in single]
            down = [each[2].float() for each in single]
            for name, stack in (("gate_up_proj", both), ("down_proj", down)):
                out[f"{stem}{name}{end}"] = torch.stack(stack).to(single[0][0].dtype)
    return out
