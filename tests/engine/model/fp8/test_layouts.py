"""What FP8 checkpoints may look like, and what is kept of them."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engine.model.fp8.small import (
    EXPERT,
    KEYS,
    LAYER,
    Tensors,
    content,
    dequantized,
    file,
    fp8_config,
    fused,
    load,
    same,
    save,
)
from tests.engine.model.oracle import tiny_config
from upcurve.engine.kernels.block_scaled import FP8
from upcurve.engine.model.checkpoint import write_checkpoint
from upcurve.engine.model.model import Model
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.weight_map import parameter_bytes, weight_map
from upcurve.engine.model.weights import ModelWeights


def test_the_published_names(tensors: Tensors, config: dict[str, Any]) -> None:
    scales = {name for name in tensors if name.endswith("_scale_inv")}
    quantized = {name for name, each in tensors.items() if each.dtype == FP8}
    assert scales == {f"{name}_scale_inv" for name in quantized}
    # Per layer: 6 experts and the shared one with 3 each; 2 x (qkv, z, out); (q, k, v, o).
    assert len(quantized) == 3 * (6 + 1) * 3 + 2 * 3 + 4
    assert tensors[f"{EXPERT}gate_proj.weight"].shape == (128, 160)
    assert tensors[f"{EXPERT}gate_proj.weight_scale_inv"].shape == (1, 2)
    assert tensors[f"{EXPERT}down_proj.weight_scale_inv"].shape == (2, 1)
    kept = config["quantization_config"]["modules_to_not_convert"]
    assert {"lm_head", f"{LAYER}mlp.gate", f"{LAYER}linear_attn.in_proj_a"} <= set(kept)
    assert not {name.removesuffix(".weight") for name in quantized} & set(kept)


def test_every_value_and_scale_is_kept_bit_by_bit(model: Model, tensors: Tensors) -> None:
    got = content(model)
    for name, stored in tensors.items():
        short = name.removeprefix("model.").replace("_scale_inv", "_scale")
        stored = stored.float()
        if ".experts." not in short:
            assert torch.equal(got[short], stored), name
            continue
        stem, expert, kind, _ = short.rsplit(".", 3)
        fused = f"{stem}.{'down_proj' if kind == 'down_proj' else 'gate_up_proj'}"
        held = got[fused + "_scale" * short.endswith("_scale")][int(expert)]
        half = len(held) // 2
        part = {"gate_proj": slice(half), "up_proj": slice(half, None), "down_proj": slice(None)}
        assert torch.equal(held[part[kind]], stored), name


def test_bytes_are_those_of_the_file(model: Model, tensors: Tensors) -> None:
    assert parameter_bytes(model.weights) == sum(each.nbytes for each in tensors.values())


def test_full_size_bytes_without_allocating() -> None:
    config = tiny_config(
        vocab_size=248_320,
        hidden_size=2048,
        num_hidden_layers=40,
        num_attention_heads=16,
        num_key_value_heads=2,
        head_dim=256,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        linear_num_key_heads=16,
        linear_num_value_heads=32,
        num_experts=256,
        num_experts_per_tok=8,
        moe_intermediate_size=512,
        shared_expert_intermediate_size=512,
    )
    shapes, meta = ModelShapes.from_config(config), torch.device("meta")
    wide, narrow = (
        parameter_bytes(ModelWeights.empty(shapes, meta, torch.bfloat16, quantized=quantized))
        for quantized in (False, True)
    )
    assert 69e9 < wide < 70e9
    # Experts and projections take half; embedding, head and routers stay.
    assert 35.5e9 < narrow < 36.5e9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_three_ways_to_the_same_weights(
    tmp_path: Path, plain: Path, whole: Path, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    """Written in FP8; quantised while a plain checkpoint is loaded; drawn and quantised."""
    if dtype != torch.float32:
        plain, whole = tmp_path / "plain", tmp_path / "whole"
        write_checkpoint(plain, fp8_config(), seed=5, dtype=dtype)
        write_checkpoint(whole, fp8_config(), seed=5, dtype=dtype, quantization="fp8")
    written = load(whole, dtype=dtype)
    with caplog.at_level(logging.INFO):
        quantized = load(plain, dtype=dtype, quantization="fp8")
    # Per layer the fused experts (2), the shared one (3); the mixers as in the file.
    assert f"quantised {3 * 5 + 2 * 3 + 4} tensors to FP8 while loading" in caplog.text
    drawn = load(plain, dtype=dtype, quantization="fp8", load_format="dummy", seed=5)
    same(quantized, written)
    same(drawn, written)
    same(load(whole, dtype=dtype, load_format="dummy", seed=5), written)


def test_quantization_of_an_fp8_checkpoint_is_its_own(whole: Path, model: Model) -> None:
    same(load(whole, quantization="fp8"), model)
    same(load(whole, quantization="none"), model)


def test_fused_experts_with_fused_scales(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], model: Model
) -> None:
    stacked = fused(tensors)
    assert stacked[f"{LAYER}mlp.experts.gate_up_proj"].dtype == FP8
    assert stacked[f"{LAYER}mlp.experts.gate_up_proj_scale_inv"].shape == (6, 2, 2)
    same(load(save(tmp_path, stacked, config)), model)


def test_scales_of_another_type(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], model: Model
) -> None:
    narrow = {
        name: each.bfloat16() if name.endswith("_scale_inv") else each
        for name, each in tensors.items()
    }
    got, want = content(load(save(tmp_path, narrow, config))), content(model)
    for name, each in want.items():
        expected = each.bfloat16().float() if name.endswith("_scale") else each
        assert torch.equal(got[name], expected), name


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv"])
def test_one_scale_for_a_tensor(
    tmp_path: Path,
    tensors: Tensors,
    config: dict[str, Any],
    name: str,
    shape: tuple[int, ...],
) -> None:
    del config["quantization_config"]["weight_block_size"]
    spread = dict(tensors)
    for each in list(tensors):
        if each.endswith("_scale_inv"):
            scale = tensors.pop(each).max()
            spread[each] = torch.full_like(spread[each], scale)
            tensors[each.replace("weight_scale_inv", name)] = scale.reshape(shape)
    (tmp_path / "blocks").mkdir()
    same(load(save(tmp_path, tensors, config)), load(save(tmp_path / "blocks", spread, config)))


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 1, 1)])
def test_one_scale_for_each_fused_expert(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], shape: tuple[int, ...]
) -> None:
    tensors = fused(tensors)
    name = f"{LAYER}mlp.experts.down_proj_scale_inv"
    scale = torch.arange(1, 7) / 1000
    tensors[name] = scale.reshape(shape)
    got = load(save(tmp_path, tensors, config)).weights.layers[0].experts.down.scale
    assert got is not None
    assert torch.equal(got[:6], scale.reshape(6, 1, 1).expand(6, 2, 1))


def test_a_matrix_that_is_not_fp8_is_quantised(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], plain: Path, model: Model
) -> None:
    for name in (KEYS, f"{EXPERT}up_proj.weight", f"{LAYER}linear_attn.in_proj_z.weight"):
        del tensors[f"{name}_scale_inv"]
        config["quantization_config"]["modules_to_not_convert"].append(name.removesuffix(".weight"))
        if ".experts." in name:
            stacked = load_file(plain / "model.safetensors")[f"{LAYER}mlp.experts.gate_up_proj"]
            tensors[name] = stacked[2, 128:]
        else:
            tensors[name] = load_file(plain / "model.safetensors")[name]
    same(load(save(tmp_path, tensors, config)), model)


def test_vectors_stay_float32(tmp_path: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    for name in list(tensors):
        if tensors[name].dim() == 1:
            tensors[name] = tensors[name].bfloat16()
    got = load(save(tmp_path, tensors, config), dtype=torch.bfloat16)
    for name, each in weight_map(got.weights).items():
        if isinstance(each, torch.Tensor) and each.dim() == 1:
            assert each.dtype == torch.float32, name
            assert torch.equal(each, tensors[f"model.{name}"].float()), name


def test_scales_in_another_shard(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], model: Model
) -> None:
    save(tmp_path, {}, config)
    file(tmp_path).unlink()
    table = {}
    for part, of_scales in (("a", True), ("b", False)):
        chosen = {
            name: each for name, each in tensors.items() if name.endswith("_scale_inv") == of_scales
        }
        save_file(chosen, tmp_path / f"{part}.safetensors")
        table |= dict.fromkeys(chosen, f"{part}.safetensors")
    index = json.dumps({"weight_map": table})
    (tmp_path / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    same(load(tmp_path), model)


def test_other_parts_and_their_scales_are_skipped(
    tmp_path: Path,
    tensors: Tensors,
    config: dict[str, Any],
    model: Model,
    caplog: pytest.LogCaptureFixture,
) -> None:
    extra = "mtp.layers.0.mlp.experts.0.up_proj.weight"
    tensors |= {extra: torch.ones(3, 3).to(FP8), f"{extra}_scale_inv": torch.ones(1, 1)}
    tensors["model.visual.blocks.0.attn.qkv.weight"] = torch.ones(3)
    with caplog.at_level(logging.INFO):
        same(load(save(tmp_path, tensors, config)), model)
    lines = [each.getMessage() for each in caplog.records if "skipped" in each.getMessage()]
    assert lines == ["skipped 3 tensors of the vision and multi-token-prediction parts"]


def test_transformers_reads_the_same_from_what_is_written_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM, FineGrainedFP8Config
        from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

        # It asks for a package that places models on several devices: here is one.
        monkeypatch.setattr(
            FineGrainedFP8HfQuantizer, "validate_environment", lambda *_, **__: None
        )
        # It takes only sizes that are multiples of the block.
        write_checkpoint(tmp_path, fp8_config(hidden_size=256), seed=4, quantization="fp8")
        theirs = AutoModelForCausalLM.from_pretrained(
            tmp_path,
            dtype=torch.float32,
            quantization_config=FineGrainedFP8Config(dequantize=True),
        ).state_dict()
    ours = weight_map(dequantized(load(tmp_path)).weights)
    assert len(ours) == len(theirs)
    for name, each in ours.items():
        assert torch.equal(theirs[name if name in theirs else f"model.{name}"], each), name
