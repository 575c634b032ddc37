"""FP8 checkpoints: what is read, what is computed with it, and what is refused."""

from __future__ import annotations

import json
import logging
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.engine.model.oracle import CPU, in_pieces, new_memory, random_ids, tiny_config
from upcurve.engine.errors import EngineInputError
from upcurve.engine.kernels import block_scaled
from upcurve.engine.kernels.block_scaled import FP8
from upcurve.engine.model.checkpoint import write_checkpoint
from upcurve.engine.model.matrix import Rows
from upcurve.engine.model.model import Model, load_model
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.weights import ModelWeights, weight_map
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp8") / "whole"
    write_checkpoint(folder, fp8_config(), seed=5, quantization="fp8")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp8") / "plain"
    write_checkpoint(folder, fp8_config(), seed=5)
    return folder


@pytest.fixture(scope="module")
def model(whole: Path) -> Model:
    return load(whole)


@pytest.fixture
def tensors(whole: Path) -> Tensors:
    return load_file(whole / "model.safetensors")


@pytest.fixture
def config(whole: Path) -> dict[str, Any]:
    return json.loads((whole / "config.json").read_text(encoding="utf-8"))


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
    assert model.weights.parameter_bytes() == sum(each.nbytes for each in tensors.values())


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
        ModelWeights.empty(shapes, meta, torch.bfloat16, quantized=quantized).parameter_bytes()
        for quantized in (False, True)
    )
    assert 69e9 < wide < 70e9
    # Experts and projections take half; embedding, head and routers stay.
    assert 35.5e9 < narrow < 36.5e9


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


def test_logits_are_those_of_the_dequantised_weights(model: Model) -> None:
    error = relative(run(model), run(dequantized(model)))
    # Activations of 3 bits of mantissa are 2**-4 / sqrt(3) off, in every product on the way; where
    # two experts nearly tie, a token goes another way.
    assert error.median() < 0.08
    assert error.mean() < 0.12


def test_logits_are_exactly_those_of_rounded_activations(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def product(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        quantized, scales = block_scaled.quantize_rows(x)
        rounded = quantized.double() * scales.double()[:, torch.arange(x.shape[1]) // 128]
        return torch.einsum("rk,...nk->...rn", rounded, exact(weight, scale))

    def linear(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return product(x, weight, scale).to(x.dtype)

    def grouped(
        x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, ends: torch.Tensor
    ) -> torch.Tensor:
        rows = torch.arange(len(x))
        group = torch.searchsorted(ends, rows, right=True)
        return product(x, weight, scale)[group, rows].to(x.dtype)

    got = run(model)
    monkeypatch.setattr(block_scaled, "linear", linear)
    monkeypatch.setattr(block_scaled, "grouped", grouped)
    error = relative(got, run(model))
    # A sum in another order may send an activation to the next number of 3 bits.
    assert error.median() < 1e-4
    assert error.max() < 0.03


@pytest.mark.parametrize("shared", [128, 140])
def test_all_combinations_of_switches_agree(shared: int, tmp_path: Path) -> None:
    config = fp8_config(shared_expert_intermediate_size=shared)
    write_checkpoint(tmp_path, config, seed=2, quantization="fp8")
    model = load(tmp_path)
    want = run(model)
    names = [name for name in Switches.names() if name != "cuda_graphs"]
    for values in product([True, False], repeat=len(names)):
        off = ",".join(name for name, on in zip(names, values, strict=True) if not on)
        other = Model(model.shapes, model.weights, Switches.without(off), model.dtype)
        error = relative(run(other), want)
        assert error.median() < 5e-3, off
        assert error.max() < 0.05, off


def test_bfloat16_activations(whole: Path, model: Model) -> None:
    rough = load(whole, dtype=torch.bfloat16)
    assert rough.weights.embedding.dtype == torch.bfloat16
    error = relative(run(rough), run(model))
    assert error.median() < 0.1


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
    assert "quantised 19 tensors to FP8 while loading" not in caplog.text
    # Per layer the fused experts (2), the shared one (3); the mixers as in the file.
    assert f"quantised {3 * 5 + 2 * 3 + 4} tensors to FP8 while loading" in caplog.text
    drawn = load(plain, dtype=dtype, quantization="fp8", load_format="dummy", seed=5)
    same(quantized, written)
    same(drawn, written)


def test_quantization_of_an_fp8_checkpoint_is_its_own(whole: Path, model: Model) -> None:
    same(load(whole, quantization="fp8"), model)
    same(load(whole, quantization="none"), model)


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


@pytest.mark.parametrize("scale", [1e-23, 0.0])
def test_dead_experts_give_no_nan(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], scale: float
) -> None:
    for expert in range(4):
        for kind in ("gate", "up", "down"):
            name = f"{LAYER}mlp.experts.{expert}.{kind}_proj.weight_scale_inv"
            tensors[name] = torch.full_like(tensors[name], scale)
    dead = load(save(tmp_path, tensors, config))
    for off in ("", "grouped_experts"):
        switched = Model(dead.shapes, dead.weights, Switches.without(off), dead.dtype)
        assert run(switched).isfinite().all()


@settings(max_examples=12)
@given(
    hidden=st.integers(3, 20).map(lambda each: each * 8),
    width=st.sampled_from([20, 64, 128, 130]),
    shared=st.sampled_from([20, 64, 128]),
    head=st.sampled_from([8, 16, 24]),
    value_heads=st.sampled_from([2, 4]),
    seed=st.integers(0, 9),
)
def test_sizes_that_fill_no_block(
    tmp_path_factory: pytest.TempPathFactory,
    hidden: int,
    width: int,
    shared: int,
    head: int,
    value_heads: int,
    seed: int,
) -> None:
    changes = {
        "hidden_size": hidden,
        "moe_intermediate_size": width,
        "shared_expert_intermediate_size": shared,
        "head_dim": head,
        "linear_num_value_heads": value_heads,
        "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "full_attention"],
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5},
    }
    folder = tmp_path_factory.mktemp("sizes")
    write_checkpoint(folder / "plain", tiny_config(**changes), seed=seed)
    write_checkpoint(folder / "fp8", tiny_config(**changes), seed=seed, quantization="fp8")
    plain = load(folder / "plain")
    source = weight_map(plain.weights)
    for model in (load(folder / "fp8"), load(folder / "plain", quantization="fp8")):
        for name, target in weight_map(dequantized(model).weights).items():
            # Up to three times rounded to 3 bits, where parts share a block.
            bound = 0.2 * source[name].abs() + 2e-3 * source[name].abs().max()
            assert ((target - source[name]).abs() <= bound).all(), name
        other = Model(model.shapes, model.weights, Switches.without("all"), model.dtype)
        assert relative(run(other), run(model)).median() < 0.02


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


def test_dummy_weights_in_fp8_behave_like_plain_ones(plain: Path) -> None:
    options = {"load_format": "dummy", "seed": 1}
    narrow, wide = load(plain, quantization="fp8", **options), load(plain, **options)
    for each in content(narrow).values():
        assert each.isfinite().all()
    assert relative(run(narrow), run(wide)).median() < 0.2
    assert 0.3 < run(narrow).std() < 3
