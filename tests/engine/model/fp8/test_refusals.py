"""FP8 checkpoints that are refused, each with the tensor's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from tests.engine.model.fp8.small import (
    EXPERT,
    KEYS,
    LAYER,
    Tensors,
    error,
    fp8_config,
    load,
    same,
    save,
)
from upcurve.engine.kernels.block_scaled import FP8
from upcurve.engine.model import weights
from upcurve.engine.model.checkpoint import write_checkpoint
from upcurve.engine.model.model import Model


def test_a_scale_without_its_weight(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any]
) -> None:
    del tensors[KEYS]
    assert error(save(tmp_path, tensors, config)) == (
        f"model: tensor {KEYS}_scale_inv is the scale of {KEYS}, which is missing; "
        "complete the checkpoint"
    )


def test_a_weight_without_its_scale(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any]
) -> None:
    name = f"{EXPERT}up_proj.weight"
    del tensors[f"{name}_scale_inv"]
    assert error(save(tmp_path, tensors, config)) == (
        f"model: tensor {name} is FP8 and has no scale; add {name}_scale_inv"
    )


def test_a_weight_with_two_scales(tmp_path: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    tensors[f"{KEYS}_scale"] = torch.ones(())
    assert f"tensor {KEYS} has two scales; remove {KEYS}_scale" in error(
        save(tmp_path, tensors, config)
    )


def test_a_scale_of_a_plain_weight(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any]
) -> None:
    tensors[KEYS] = tensors[KEYS].bfloat16()
    assert error(save(tmp_path, tensors, config)) == (
        f"model: tensor {KEYS}_scale_inv is a scale, but {KEYS} is BF16, not FP8; "
        "remove one of them"
    )


@pytest.mark.parametrize(
    "name", [f"{LAYER}mlp.gate.weight", f"{LAYER}linear_attn.in_proj_a.weight", "lm_head.weight"]
)
def test_fp8_where_it_is_not_expected(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], name: str
) -> None:
    tensors[name] = tensors[name].to(FP8)
    tensors[f"{name}_scale_inv"] = torch.ones(1, 1)
    assert error(save(tmp_path, tensors, config)) == (
        f"model: tensor {name} is FP8, but is not quantised in this model; "
        "use the published FP8 format, with its quantization_config"
    )


def test_fp8_without_a_quantization_config(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], model: Model
) -> None:
    del config["quantization_config"]
    folder = save(tmp_path, tensors, config)
    assert "is FP8, but is not quantised in this model" in error(folder)
    same(load(folder, quantization="fp8"), model)


def test_a_module_that_should_not_be_fp8(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any]
) -> None:
    config["quantization_config"]["modules_to_not_convert"].append("self_attn.k_proj")
    assert error(save(tmp_path, tensors, config)) == (
        f"quantization_config.modules_to_not_convert: lists {KEYS}, which is FP8; "
        "correct config.json"
    )


@pytest.mark.parametrize("shape", [(2,), (1, 1, 2), (2, 1), (3, 2)])
def test_a_scale_of_another_shape(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], shape: tuple[int, ...]
) -> None:
    tensors[f"{KEYS}_scale_inv"] = torch.ones(shape)
    assert error(save(tmp_path, tensors, config)) == (
        f"model: tensor {KEYS}_scale_inv is {list(shape)}, blocks of 128 x 128 need [1, 2]; "
        "give one scale for each block, or one for the tensor"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_scale_that_is_not_finite(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], value: float
) -> None:
    tensors[f"{KEYS}_scale_inv"][0, 1] = value
    assert error(save(tmp_path, tensors, config)) == (
        f"model: tensor {KEYS}_scale_inv is not finite; fetch it anew"
    )


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.int8, "I8"), (torch.float8_e5m2, "F8_E5M2"), (torch.int64, "I64")]
)
@pytest.mark.parametrize("tensor", [KEYS, "model.norm.weight"])
def test_a_type_that_is_none_of_ours(
    tmp_path: Path,
    tensors: Tensors,
    config: dict[str, Any],
    tensor: str,
    dtype: torch.dtype,
    name: str,
) -> None:
    tensors[tensor] = tensors[tensor].float().to(dtype)
    assert error(save(tmp_path, tensors, config)) == (
        f"model: tensor {tensor} has the type {name}; give it as BF16, F16, F32, F64 or F8_E4M3"
    )


def test_a_scale_with_integers(tmp_path: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    tensors[f"{KEYS}_scale_inv"] = torch.ones(1, 2, dtype=torch.int32)
    assert f"tensor {KEYS}_scale_inv has the type I32" in error(save(tmp_path, tensors, config))


def test_a_missing_expert(tmp_path: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    for end in ("", "_scale_inv"):
        del tensors[f"{EXPERT}up_proj.weight{end}"]
    assert error(save(tmp_path, tensors, config)) == (
        "model: no tensor fills layers.0.mlp.experts.gate_up_proj; complete the checkpoint"
    )


def test_a_scale_under_a_wrong_name(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any]
) -> None:
    # https://github.com/sgl-project/sglang/issues/23687: such scales were dropped in silence.
    scale = tensors.pop(f"{EXPERT}gate_proj.weight_scale_inv")
    tensors[f"{EXPERT}gate_gate_proj.weight_scale_inv"] = scale
    assert "gate_gate_proj.weight_scale_inv is the scale of" in error(
        save(tmp_path, tensors, config)
    )


@pytest.mark.parametrize("stored", ["fp8", "none"])
def test_experts_whose_gate_and_up_share_a_block_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: Literal["fp8", "none"]
) -> None:
    write_checkpoint(tmp_path, fp8_config(moe_intermediate_size=96), seed=1, quantization=stored)
    options = {"quantization": "fp8"} if stored == "none" else {}
    # Elsewhere they are quantised again with one scale for both.
    assert load(tmp_path, **options).weights.quantized
    monkeypatch.setattr(weights, "runs_kernels", lambda device: True)
    assert error(tmp_path, **options) == (
        "moe_intermediate_size: 96 is no multiple of 128, the rows of an FP8 block; "
        "give a bf16 checkpoint, with quantization none"
    )
    if stored == "none":
        assert not load(tmp_path).weights.quantized
