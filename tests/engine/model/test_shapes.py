"""What config.json may say, and which field an error names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from upcurve.engine.errors import EngineInputError
from upcurve.engine.model.checkpoint import small_config
from upcurve.engine.model.shapes import ModelShapes

SIZES = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "linear_conv_kernel_dim",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "max_position_embeddings",
]


def test_derived_sizes() -> None:
    shapes = ModelShapes.from_config(small_config())
    assert shapes.num_layers == 8
    assert shapes.attention_layers == (3, 7)
    assert shapes.linear_layers == (0, 1, 2, 4, 5, 6)
    assert (shapes.key_dim, shapes.value_dim, shapes.conv_dim) == (256, 512, 1024)
    assert (shapes.rotary_dim, shapes.rope_theta) == (16, 1e7)
    assert shapes.end_of_sequence_ids == (0,)


def test_the_text_part_may_be_nested() -> None:
    plain = small_config()
    nested = {
        "model_type": "qwen3_5_moe",
        "vision_config": {"hidden_size": 7},
        "text_config": plain,
    }
    assert ModelShapes.from_config(nested) == ModelShapes.from_config(plain)


def test_layer_types_win_over_the_interval() -> None:
    types = ["full_attention", "linear_attention"]
    shapes = ModelShapes.from_config(small_config(num_hidden_layers=2, layer_types=types))
    assert shapes.layer_types == tuple(types)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [None, 0, -3, 2.5, "8", True, [4]])
def test_a_size_is_a_positive_whole_number(name: str, value: Any) -> None:
    with pytest.raises(EngineInputError) as caught:
        ModelShapes.from_config(small_config(**{name: value}))
    problem = "missing in config.json; add it"
    if value is not None:
        problem = f"{value!r} is not a positive whole number; correct it"
    assert str(caught.value) == f"{name}: {problem}"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"model_type": "llama"},
            "model_type: 'llama' is not supported; give one of qwen3_5_moe, qwen3_5_moe_text",
        ),
        (
            {"quantization_config": {"bits": 4}},
            "quantization_config.quant_method: None is not supported; "
            "give a checkpoint with 'fp8', or a bf16 one",
        ),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'; only silu is supported"),
        ({"attention_bias": True}, "attention_bias: true; only models without it are supported"),
        (
            {"num_attention_heads": 7},
            "num_attention_heads: 7 is no multiple of num_key_value_heads; correct config.json",
        ),
        (
            {"linear_num_value_heads": 6},
            "linear_num_value_heads: 6 is no multiple of linear_num_key_heads; correct config.json",
        ),
        (
            {"num_experts_per_tok": 65},
            "num_experts_per_tok: 65 of 64 experts; correct config.json",
        ),
        (
            {"layer_types": ["full_attention"]},
            "layer_types: not 8 of linear_attention or full_attention; correct config.json",
        ),
        (
            {"layer_types": ["sliding"] * 8},
            "layer_types: not 8 of linear_attention or full_attention; correct config.json",
        ),
        (
            {"layer_types": 5},
            "layer_types: not 8 of linear_attention or full_attention; correct config.json",
        ),
        (
            {"full_attention_interval": 0},
            "full_attention_interval: 0 is not a positive whole number; correct it",
        ),
        (
            {"rope_parameters": {"rope_type": "yarn"}},
            "rope_parameters: rope_type 'yarn'; only default is supported",
        ),
        ({"rope_parameters": 4}, "rope_parameters: not an object; correct config.json"),
        (
            {"rope_parameters": {"partial_rotary_factor": 0.02}},
            "partial_rotary_factor: 0.02 of head_dim 64; it must give an even number",
        ),
        (
            {"rope_parameters": {"partial_rotary_factor": "half"}},
            "partial_rotary_factor: 'half' is not a positive number; correct it",
        ),
        (
            {"rope_parameters": {"rope_theta": None}},
            "rope_theta: None is not a positive number; correct it",
        ),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps: 'tiny' is not a positive number; correct it"),
        (
            {"eos_token_id": "end"},
            "eos_token_id: 'end' is not a token id or a list of them; correct it",
        ),
        (
            {"eos_token_id": [1, 2.5]},
            "eos_token_id: [1, 2.5] is not a token id or a list of them; correct it",
        ),
        ({"text_config": "none"}, "text_config: not an object; correct config.json"),
    ],
)
def test_an_error_names_its_field(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(EngineInputError) as caught:
        ModelShapes.from_config(small_config(**changes))
    assert str(caught.value) == line


def write(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content, encoding="utf-8")


def test_end_of_sequence_ids_come_from_the_generation_config_first(tmp_path: Path) -> None:
    write(tmp_path, "config.json", json.dumps(small_config(eos_token_id=5)))
    assert ModelShapes.from_folder(tmp_path).end_of_sequence_ids == (5,)
    write(tmp_path, "generation_config.json", '{"eos_token_id": [7, 5]}')
    assert ModelShapes.from_folder(tmp_path).end_of_sequence_ids == (7, 5)
    write(tmp_path, "generation_config.json", "{}")
    assert ModelShapes.from_folder(tmp_path).end_of_sequence_ids == (5,)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(EngineInputError) as caught:
        ModelShapes.from_folder(tmp_path / "nowhere")
    assert str(caught.value) == (
        f"model: {tmp_path / 'nowhere'} is not a folder; give a Hugging Face checkpoint folder"
    )


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(EngineInputError) as caught:
        ModelShapes.from_folder(tmp_path)
    assert str(caught.value) == (
        f"model: {tmp_path} has no config.json; give a Hugging Face checkpoint folder"
    )


@pytest.mark.parametrize("content", ["{", "", '{"a": 1,}', "[]", "3"])
def test_a_config_that_is_no_object(tmp_path: Path, content: str) -> None:
    write(tmp_path, "config.json", content)
    with pytest.raises(EngineInputError) as caught:
        ModelShapes.from_folder(tmp_path)
    assert caught.value.field == "config.json"
    assert "\n" not in str(caught.value)


def test_a_config_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EngineInputError, match=r"^config\.json: "):
        ModelShapes.from_folder(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_generation_config_that_is_no_object(tmp_path: Path, content: str) -> None:
    write(tmp_path, "config.json", json.dumps(small_config()))
    write(tmp_path, "generation_config.json", content)
    with pytest.raises(EngineInputError) as caught:
        ModelShapes.from_folder(tmp_path)
    assert caught.value.field == "generation_config.json"


def test_the_shapes_in_the_repository_are_transformers_default() -> None:
    from transformers import Qwen3_5MoeTextConfig

    folder = Path(__file__).parents[3] / "models" / "qwen35-35b-a3b"
    ours = ModelShapes.from_folder(folder)
    theirs = ModelShapes.from_config(Qwen3_5MoeTextConfig().to_dict())
    # The class has no rotation base of the checkpoints (1e7), and no end of sequence.
    assert replace(ours, rope_theta=theirs.rope_theta) == replace(
        theirs, end_of_sequence_ids=ours.end_of_sequence_ids
    )
