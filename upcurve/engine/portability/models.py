"""The models that kernels are made for, by the shapes that one GPU sees of them."""

from __future__ import annotations

from upcurve.engine.model.shapes import ModelShapes

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
    # A quarter of Qwen3.5-397B-A17B (its model card): heads, widths and vocabulary are divided;
    # of the two KV heads each of four GPUs has one.
    "397B/TP4": {
        "vocab_size": 62_080,
        "hidden_size": 4096,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 16,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 256,
        "shared_expert_intermediate_size": 256,
    },
}


def known_models() -> dict[str, ModelShapes]:
    """Return the models that kernels are tuned for, by name."""
    return {name: ModelShapes.from_config({**FAMILY, **sizes}) for name, sizes in MODELS.items()}
