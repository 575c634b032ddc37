"""Checkpoint folders, whole and broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engine.model.oracle import (
    CPU,
    TOLERANCE,
    in_pieces,
    load,
    load_transformers,
    new_memory,
    random_ids,
    tiny_config,
    transformers_logits,
    write,
)
from upcurve.engine.errors import EngineInputError
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.weight_map import parameter_bytes, weight_map
from upcurve.engine.model.weights import ModelWeights

Tensors = dict[str, torch.Tensor]
GATE_UP = "model.layers.0.mlp.experts.gate_up_proj"
DOWN = "model.layers.0.mlp.experts.down_proj"
IDS = random_ids(12, seed=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("loader") / "whole", num_hidden_layers=4)


@pytest.fixture(scope="module")
def logits(whole: Path) -> torch.Tensor:
    return run(whole)


@pytest.fixture
def tensors(whole: Path) -> Tensors:
    return load_file(whole / "model.safetensors")


def run(folder: Path) -> torch.Tensor:
    model = load(folder)
    return in_pieces(model, new_memory(model), IDS, [len(IDS)])


def save(folder: Path, tensors: Tensors, **changes: Any) -> Path:
    config = tiny_config(num_hidden_layers=4, **changes)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({name: each.contiguous() for name, each in tensors.items()}, file(folder))
    return folder


def file(folder: Path) -> Path:
    return folder / "model.safetensors"


def per_expert(tensors: Tensors) -> Tensors:
    """Give each expert tensors of its own, as older checkpoints do."""
    out: Tensors = {}
    for name, each in tensors.items():
        if name.endswith("experts.gate_up_proj"):
            stem = name.removesuffix("gate_up_proj")
            for expert, matrix in enumerate(each):
                gate, up = matrix.chunk(2)
                out[f"{stem}{expert}.gate_proj.weight"] = gate.clone()
                out[f"{stem}{expert}.up_proj.weight"] = up.clone()
        elif name.endswith("experts.down_proj"):
            stem = name.removesuffix("down_proj")
            for expert, matrix in enumerate(each):
                out[f"{stem}{expert}.down_proj.weight"] = matrix.clone()
        else:
            out[name] = each
    return out


def shard(folder: Path, tensors: Tensors) -> dict[str, str]:
    """Save in two files with an index; return its map."""
    save(folder, {})
    file(folder).unlink()
    names = sorted(tensors)
    table: dict[str, str] = {}
    for part, chosen in enumerate((names[::2], names[1::2])):
        shard_name = f"model-0000{part + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in chosen}, folder / shard_name)
        table |= dict.fromkeys(chosen, shard_name)
    index(folder, {"metadata": {}, "weight_map": table})
    return table


def index(folder: Path, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def error(folder: Path) -> str:
    with pytest.raises(EngineInputError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["model.", "model.language_model."])
@pytest.mark.parametrize("layout", ["fused", "per expert"])
def test_both_prefixes_and_both_layouts(
    tmp_path: Path, tensors: Tensors, logits: torch.Tensor, prefix: str, layout: str
) -> None:
    if layout == "per expert":
        tensors = per_expert(tensors)
    renamed = {
        prefix + name.removeprefix("model.") if name.startswith("model.") else name: each
        for name, each in tensors.items()
    }
    assert torch.equal(run(save(tmp_path, renamed)), logits)


def test_shards_with_an_index(tmp_path: Path, tensors: Tensors, logits: torch.Tensor) -> None:
    shard(tmp_path, per_expert(tensors))
    assert torch.equal(run(tmp_path), logits)


def test_other_parts_are_skipped(tmp_path: Path, tensors: Tensors, logits: torch.Tensor) -> None:
    for name in ("mtp.fc.weight", "model.visual.patch_embed.proj.weight", "visual.merger.bias"):
        tensors[name] = torch.ones(3)
    assert torch.equal(run(save(tmp_path, tensors)), logits)


@pytest.mark.parametrize("copied", [True, False])
def test_tied_embeddings(tmp_path: Path, tensors: Tensors, copied: bool) -> None:
    embedding = tensors["model.embed_tokens.weight"]
    (tmp_path / "tied").mkdir()
    (tmp_path / "apart").mkdir()
    apart = run(save(tmp_path / "apart", {**tensors, "lm_head.weight": embedding.clone()}))
    if copied:
        tensors["lm_head.weight"] = embedding.clone()
    else:
        del tensors["lm_head.weight"]
    tied = run(save(tmp_path / "tied", tensors, tie_word_embeddings=True))
    assert torch.equal(tied, apart)


def test_every_parameter_is_filled_with_its_own_tensor(whole: Path, tensors: Tensors) -> None:
    model = load(whole)
    table = weight_map(model.weights)
    for name, each in table.items():
        stored = tensors[name if name == "lm_head.weight" else f"model.{name}"]
        assert torch.equal(each, stored), name
    assert len(table) == len(tensors)
    assert parameter_bytes(model.weights) == sum(each.nbytes for each in tensors.values())
    for norm in model.weights.norms():
        assert torch.equal(norm.one_plus, norm.weight + 1)


@pytest.mark.parametrize("shared", [20, 13])
def test_views_of_the_weight_map_cover_all_that_is_allocated(shared: int) -> None:
    shapes = ModelShapes.from_config(tiny_config(shared_expert_intermediate_size=shared))
    weights = ModelWeights.empty(shapes, CPU, torch.float32)
    places = [
        (each.untyped_storage().data_ptr(), each.storage_offset(), each.numel())
        for each in weight_map(weights).values()
    ]
    stores = {each.untyped_storage() for each in weight_map(weights).values()}
    size = {store.data_ptr(): store.nbytes() // 4 for store in stores}
    covered = dict.fromkeys(size, 0)
    for store, _, count in places:
        covered[store] += count
    assert covered == size
    assert len(set(places)) == len(places)


def test_an_unused_tensor(tmp_path: Path, tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.extra.weight"] = torch.ones(2)
    assert error(save(tmp_path, tensors)) == (
        "model: tensor model.layers.0.mlp.extra.weight is not part of the model; remove it"
    )


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.4.input_layernorm.weight",
        "model.layers.0.mlp.experts.12.up_proj.weight",
        "model.layers.0.mlp.experts.1.side_proj.weight",
        "model.layers.0.mlp.experts.1.up_proj.bias",
        "model.layers.3.linear_attn.A_log",
    ],
)
def test_a_tensor_beyond_the_model(tmp_path: Path, tensors: Tensors, name: str) -> None:
    tensors = per_expert(tensors)
    tensors[name] = torch.ones(2)
    assert error(save(tmp_path, tensors)) == f"model: tensor {name} is not part of the model; " + (
        "remove it"
    )


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.linear_attn.A_log", GATE_UP])
def test_an_unfilled_parameter(tmp_path: Path, tensors: Tensors, name: str) -> None:
    del tensors[name]
    short = name.removeprefix("model.")
    assert error(save(tmp_path, tensors)) == (
        f"model: no tensor fills {short}; complete the checkpoint"
    )


@pytest.mark.parametrize(
    ("part", "short"), [("up", "gate_up_proj"), ("gate", "gate_up_proj"), ("down", "down_proj")]
)
def test_one_missing_expert(tmp_path: Path, tensors: Tensors, part: str, short: str) -> None:
    tensors = per_expert(tensors)
    del tensors[f"model.layers.2.mlp.experts.5.{part}_proj.weight"]
    assert error(save(tmp_path, tensors)) == (
        f"model: no tensor fills layers.2.mlp.experts.{short}; complete the checkpoint"
    )


def test_several_unfilled_parameters(tmp_path: Path, tensors: Tensors) -> None:
    kept = {name: each for name, each in tensors.items() if not name.endswith(".A_log")}
    assert error(save(tmp_path, kept)) == (
        "model: no tensor fills layers.0.linear_attn.A_log and 2 more; complete the checkpoint"
    )


@pytest.mark.parametrize(
    "name", ["model.norm.weight", DOWN, "model.layers.0.linear_attn.conv1d.weight"]
)
def test_a_wrong_shape(tmp_path: Path, tensors: Tensors, name: str) -> None:
    want = list(tensors[name].shape)
    tensors[name] = tensors[name][:-1]
    got = list(tensors[name].shape)
    assert error(save(tmp_path, tensors)) == (
        f"model: tensor {name} is {got}, config.json says {want}; "
        "use the config.json that belongs to the weights"
    )


def test_a_tensor_that_would_only_broadcast(tmp_path: Path, tensors: Tensors) -> None:
    tensors["model.norm.weight"] = torch.ones(1)
    assert "tensor model.norm.weight is [1], config.json says [48]" in error(
        save(tmp_path, tensors)
    )


def test_a_duplicate_under_the_other_prefix(tmp_path: Path, tensors: Tensors) -> None:
    tensors["model.language_model.norm.weight"] = tensors["model.norm.weight"].clone()
    assert "norm.weight comes a second time; remove one of them" in error(save(tmp_path, tensors))


def test_an_expert_that_is_also_in_the_fused_tensor(tmp_path: Path, tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.experts.3.down_proj.weight"] = tensors[DOWN][3].clone()
    assert "comes a second time; remove one of them" in error(save(tmp_path, tensors))


def test_an_expert_in_two_shards(tmp_path: Path, tensors: Tensors) -> None:
    table = shard(tmp_path, tensors)
    first = load_file(tmp_path / table[DOWN])
    other = next(name for name in table.values() if name != table[DOWN])
    second = load_file(tmp_path / other)
    save_file({**second, DOWN: first[DOWN]}, tmp_path / other)
    assert error(tmp_path) == f"model: tensor {DOWN} comes a second time; remove one of them"


def test_a_folder_without_weights(tmp_path: Path, tensors: Tensors) -> None:
    file(save(tmp_path, tensors)).unlink()
    assert error(tmp_path) == (
        f"model: {tmp_path} has no model.safetensors; complete it, or use --load-format dummy"
    )


def test_an_index_that_names_a_missing_file(tmp_path: Path, tensors: Tensors) -> None:
    table = shard(tmp_path, tensors)
    missing = table["model.norm.weight"]
    (tmp_path / missing).unlink()
    assert error(tmp_path) == (
        f"model: {tmp_path} has no {missing}; complete it, or use --load-format dummy"
    )


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}']
)
def test_an_index_that_is_none(tmp_path: Path, tensors: Tensors, content: str) -> None:
    index(save(tmp_path, tensors), content)
    assert error(tmp_path).startswith(
        "model: model.safetensors.index.json is not a checkpoint index"
    )


@pytest.mark.parametrize("keep", [0, 5, 100, -10])
def test_a_corrupt_file(tmp_path: Path, tensors: Tensors, keep: int) -> None:
    path = file(save(tmp_path, tensors))
    path.write_bytes(path.read_bytes()[:keep])
    line = error(tmp_path)
    assert line.startswith("model: model.safetensors is corrupt: ")
    assert line.endswith("; fetch it anew")


@pytest.mark.parametrize("shared", [20, 13])
@pytest.mark.parametrize("sharded", [True, False])
def test_what_transformers_saves_loads_here(tmp_path: Path, shared: int, sharded: bool) -> None:
    model = load_transformers(write(tmp_path / "ours", shared_expert_intermediate_size=shared))
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(1.25)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="40KB" if sharded else "1GB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists() == sharded
    torch.testing.assert_close(
        run(tmp_path / "theirs"), transformers_logits(model, IDS), atol=TOLERANCE, rtol=1e-4
    )


def test_what_is_written_here_loads_in_transformers(whole: Path, logits: torch.Tensor) -> None:
    theirs = transformers_logits(load_transformers(whole), IDS)
    torch.testing.assert_close(logits, theirs, atol=TOLERANCE, rtol=1e-4)
