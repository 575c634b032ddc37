"""A small model's sizes and two engines' descriptions."""

from __future__ import annotations

from typing import Any

import torch

from upcurve.engine.memory.caches import CacheTypes
from upcurve.engine.model.checkpoint import small_config
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.transfer.description import Description

TYPES = CacheTypes(torch.bfloat16, torch.bfloat16)


def shapes_of(**sizes: Any) -> ModelShapes:
    """Four layers, of which the last has attention; 2 key-value heads, 2 and 4 linear heads."""
    return ModelShapes.from_config(small_config(**SIZES | sizes))


def described(types: CacheTypes = TYPES, **others: Any) -> Description:
    """Describe an engine of that model."""
    options = {"page_size": 4, "tp": 1, "model": {"vocab_size": 400}, "weights": "w"} | others
    return Description.of(options.pop("shapes", shapes_of()), types, **options)


SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "max_position_embeddings": 256,
}
