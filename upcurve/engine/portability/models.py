"""The models that kernels are made for, and over how many GPUs each is served."""

from __future__ import annotations

from dataclasses import dataclass

from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.parallel.layout import Layout

FAMILY = {
    "model_type": "qwen3_5_moe_text",
    "num_hidden_layers": 4,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "max_position_embeddings": 262_144,
    "rope_parameters": {"rope_theta": 1e7, "partial_rotary_factor": 0.25},
}
"""What Qwen3.5 MoE models have in common."""
MODELS = {
    # The default of transformers' Qwen3_5MoeTextConfig.
    "35B": {
        "vocab_size": 248_320,
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
    },
    # Qwen3.5-397B-A17B's model card.
    "397B": {
        "vocab_size": 248_320,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 2,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 64,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 1024,
        "shared_expert_intermediate_size": 1024,
    },
}
RANKS = {"35B": 1, "397B": 4}
"""GPUs over which each is served; more, where all is compiled, are `steps.MORE_RANKS`."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model over some GPUs, of which the first is looked at."""

    name: str
    shapes: ModelShapes
    """Of the whole model."""
    layout: Layout

    def __str__(self) -> str:
        return self.name if self.layout.tp == 1 else f"{self.name}/TP{self.layout.tp}"


def known_models() -> list[ServedModel]:
    """Return the models that kernels are tuned for, as they are served."""
    return [
        ServedModel(name, ModelShapes.from_config({**FAMILY, **sizes}), Layout(tp=RANKS[name]))
        for name, sizes in MODELS.items()
    ]
