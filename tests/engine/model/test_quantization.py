"""What quantization_config may say, and which modules it keeps."""

from __future__ import annotations

from typing import Any

import pytest

from upcurve.engine.errors import EngineInputError
from upcurve.engine.model.checkpoint import small_config
from upcurve.engine.model.quantization import Quantization
from upcurve.engine.model.shapes import ModelShapes

PUBLISHED = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
    "modules_to_not_convert": ["lm_head", "model.visual", "mlp.gate"],
}


def test_the_published_format_beside_and_inside_the_text_part() -> None:
    inside = small_config(quantization_config=PUBLISHED)
    beside = {"quantization_config": PUBLISHED, "text_config": small_config()}
    for config in (inside, beside):
        quantization = ModelShapes.from_config(config).quantization
        assert quantization == Quantization(("lm_head", "model.visual", "mlp.gate"))
    assert ModelShapes.from_config(small_config()).quantization is None
    assert ModelShapes.from_config(small_config(quantization_config=None)).quantization is None


def test_one_scale_per_tensor_has_no_block_size() -> None:
    assert Quantization.from_config({"quant_method": "fp8"}) == Quantization(())


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("quant_method", "awq", "'awq' is not supported; give a checkpoint with 'fp8'"),
        ("fmt", "e5m2", "'e5m2' is not supported; give a checkpoint with 'e4m3'"),
        (
            "activation_scheme",
            "static",
            "'static' is not supported; give a checkpoint with 'dynamic'",
        ),
        (
            "weight_block_size",
            [1, 128],
            "[1, 128] is not supported; give a checkpoint with [128, 128]",
        ),
    ],
)
def test_an_error_names_the_field(name: str, value: Any, line: str) -> None:
    with pytest.raises(EngineInputError) as caught:
        ModelShapes.from_config(small_config(quantization_config={**PUBLISHED, name: value}))
    assert str(caught.value) == f"quantization_config.{name}: {line}, or a bf16 one"


@pytest.mark.parametrize("value", ["lm_head", [1], {"a": 1}])
def test_modules_that_are_no_list_of_names(value: Any) -> None:
    with pytest.raises(EngineInputError) as caught:
        Quantization.from_config({**PUBLISHED, "modules_to_not_convert": value})
    assert str(caught.value) == (
        "quantization_config.modules_to_not_convert: not a list of names; correct config.json"
    )


def test_a_config_that_is_no_object() -> None:
    with pytest.raises(EngineInputError, match="quantization_config: not an object"):
        ModelShapes.from_config(small_config(quantization_config="fp8"))


@pytest.mark.parametrize(
    ("module", "kept"),
    [
        ("lm_head", True),
        ("model.visual.blocks.0.attn.qkv", True),
        ("model.layers.3.mlp.gate", True),
        ("model.layers.3.mlp.gate_proj", False),
        ("model.layers.3.mlp.experts.7.gate_proj", False),
        ("model.visualizer", False),
        ("model.my_lm_head", False),
    ],
)
def test_names_are_matched_whole(module: str, kept: bool) -> None:
    assert Quantization.from_config(PUBLISHED).keeps(module) == kept
