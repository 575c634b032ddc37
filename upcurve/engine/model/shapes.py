"""The shape of a Qwen3.5 MoE text model, read from a checkpoint's config.json and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from upcurve.engine.errors import EngineInputError
from upcurve.engine.model.quantization import BLOCK_SIZE, Quantization

MODEL_TYPES = ("qwen3_5_moe", "qwen3_5_moe_text")
LAYER_TYPES = ("linear_attention", "full_attention")


@dataclass(frozen=True)
class ModelShapes:
    """Sizes of a Qwen3.5 MoE text model; names follow its config.json."""

    vocab_size: int
    hidden_size: int
    layer_types: tuple[str, ...]
    """"linear_attention" (Gated DeltaNet) or "full_attention" (gated attention), one per layer."""
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rotary_dim: int
    """The leading dimensions of a head that are rotated: head_dim * partial_rotary_factor."""
    rope_theta: float
    rms_norm_eps: float
    linear_conv_kernel_dim: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_num_key_heads: int
    linear_num_value_heads: int
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    end_of_sequence_ids: tuple[int, ...]
    quantization: Quantization | None
    """Of an FP8 checkpoint; None where its matrices are plain."""

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.layer_types)

    @cached_property
    def attention_layers(self) -> tuple[int, ...]:
        """Indices of the gated-attention layers, the only ones with a KV cache."""
        return tuple(i for i, kind in enumerate(self.layer_types) if kind == "full_attention")

    @cached_property
    def linear_layers(self) -> tuple[int, ...]:
        """Indices of the Gated DeltaNet layers, the only ones with recurrent state."""
        return tuple(i for i, kind in enumerate(self.layer_types) if kind == "linear_attention")

    @property
    def key_dim(self) -> int:
        """Width of all Gated DeltaNet keys (and queries) of a token."""
        return self.linear_num_key_heads * self.linear_key_head_dim

    @property
    def value_dim(self) -> int:
        """Width of all Gated DeltaNet values of a token."""
        return self.linear_num_value_heads * self.linear_value_head_dim

    @property
    def conv_dim(self) -> int:
        """Channels of the causal convolution: q, k and v."""
        return 2 * self.key_dim + self.value_dim

    def check_fp8_on_gpu(self) -> None:
        """Check that FP8 experts are made of whole blocks, as kernels take them.

        Raises:
            EngineInputError: a block of scales would be of both gate and up, which lie one above
                the other.
        """
        if self.moe_intermediate_size % BLOCK_SIZE[0]:
            raise EngineInputError(
                "moe_intermediate_size",
                f"{self.moe_intermediate_size} is no multiple of {BLOCK_SIZE[0]}, the rows of an "
                "FP8 block",
                "give a bf16 checkpoint, with quantization none",
            )

    @classmethod
    def from_folder(cls, folder: Path) -> ModelShapes:
        """Read `config.json` of a checkpoint folder.

        Raises:
            EngineInputError: the folder or file is missing or not JSON, or as `from_config`.
        """
        if not folder.is_dir():
            raise EngineInputError(
                "model", f"{folder} is not a folder", "give a Hugging Face checkpoint folder"
            )
        if not (folder / "config.json").is_file():
            raise EngineInputError(
                "model", f"{folder} has no config.json", "give a Hugging Face checkpoint folder"
            )
        shapes = cls.from_config(_object(folder / "config.json"))
        generation = folder / "generation_config.json"
        if generation.is_file():
            ends = _ids(_object(generation).get("eos_token_id"))
            if ends:
                return cls(**{**_values(shapes), "end_of_sequence_ids": ends})
        return shapes

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ModelShapes:
        """Check the object of a config.json; the text part may be nested under text_config.

        Raises:
            EngineInputError: naming the field that is missing, out of range or not supported.
        """
        text = {**config, **_part(config, "text_config")}
        quantization = _part(text, "quantization_config")
        kind = text.get("model_type")
        if kind not in MODEL_TYPES:
            raise EngineInputError(
                "model_type", f"{kind!r} is not supported", f"give one of {', '.join(MODEL_TYPES)}"
            )
        if text.get("hidden_act", "silu") != "silu":
            raise EngineInputError(
                "hidden_act", f"{text['hidden_act']!r}", "only silu is supported"
            )
        if text.get("attention_bias"):
            raise EngineInputError("attention_bias", "true", "only models without it are supported")
        layer_types = _layer_types(text)
        head_dim = _positive(text, "head_dim")
        theta, rotary_dim = _rope(text, head_dim)
        shapes = cls(
            layer_types=layer_types,
            head_dim=head_dim,
            rotary_dim=rotary_dim,
            rope_theta=theta,
            rms_norm_eps=_positive_number("rms_norm_eps", text.get("rms_norm_eps", 1e-6)),
            tie_word_embeddings=bool(text.get("tie_word_embeddings", False)),
            end_of_sequence_ids=_ids(text.get("eos_token_id")),
            quantization=Quantization.from_config(quantization) if quantization else None,
            **{name: _positive(text, name) for name in _SIZES},
        )
        shapes._check()
        return shapes

    def _check(self) -> None:
        for whole, part in (
            ("num_attention_heads", "num_key_value_heads"),
            ("linear_num_value_heads", "linear_num_key_heads"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise EngineInputError(
                    whole, f"{getattr(self, whole)} is no multiple of {part}", "correct config.json"
                )
        if self.num_experts_per_tok > self.num_experts:
            raise EngineInputError(
                "num_experts_per_tok",
                f"{self.num_experts_per_tok} of {self.num_experts} experts",
                "correct config.json",
            )


_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
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
)


def _object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineInputError(file.name, str(error), "mend or replace the file") from error
    if not isinstance(value, dict):
        raise EngineInputError(file.name, "not an object", "mend or replace the file")
    return value


def _part(text: dict[str, Any], name: str) -> dict[str, Any]:
    value = text.get(name) or {}
    if not isinstance(value, dict):
        raise EngineInputError(name, "not an object", "correct config.json")
    return value


def _values(shapes: ModelShapes) -> dict[str, Any]:
    return {name: getattr(shapes, name) for name in ModelShapes.__dataclass_fields__}


def _positive(text: dict[str, Any], name: str) -> int:
    value = text.get(name)
    if value is None:
        raise EngineInputError(name, "missing in config.json", "add it")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise EngineInputError(name, f"{value!r} is not a positive whole number", "correct it")
    return value


def _positive_number(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise EngineInputError(name, f"{value!r} is not a positive number", "correct it")
    return float(value)


def _layer_types(text: dict[str, Any]) -> tuple[str, ...]:
    count = _positive(text, "num_hidden_layers")
    types = text.get("layer_types")
    if types is None:
        interval = _positive({"full_attention_interval": 4, **text}, "full_attention_interval")
        types = [LAYER_TYPES[(i + 1) % interval == 0] for i in range(count)]
    known = isinstance(types, list) and all(kind in LAYER_TYPES for kind in types)
    if not known or len(types) != count:
        raise EngineInputError(
            "layer_types", f"not {count} of {' or '.join(LAYER_TYPES)}", "correct config.json"
        )
    return tuple(types)


def _rope(text: dict[str, Any], head_dim: int) -> tuple[float, int]:
    rope = _part(text, "rope_parameters") or _part(text, "rope_scaling")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "mrope"):
        raise EngineInputError(
            "rope_parameters", f"rope_type {kind!r}", "only default is supported"
        )
    theta, factor = (
        _positive_number(name, rope.get(name, text.get(name, default)))
        for name, default in (("rope_theta", 10_000.0), ("partial_rotary_factor", 0.25))
    )
    rotary_dim = int(head_dim * factor)
    if not 0 < rotary_dim <= head_dim or rotary_dim % 2:
        raise EngineInputError(
            "partial_rotary_factor",
            f"{factor!r} of head_dim {head_dim}",
            "it must give an even number",
        )
    return theta, rotary_dim


def _ids(value: Any) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(not isinstance(each, int) or isinstance(each, bool) or each < 0 for each in ids):
        raise EngineInputError(
            "eos_token_id", f"{value!r} is not a token id or a list of them", "correct it"
        )
    return tuple(ids)
