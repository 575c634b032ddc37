import logging

import pytest
import torch

from upcurve.engine.model.checkpoint import small_config, write_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A tiny checkpoint of the real architecture, in the format that transformers loads too."""
    folder = tmp_path_factory.mktemp("tiny")
    config = small_config(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        head_dim=16,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        max_position_embeddings=256,
    )
    write_checkpoint(folder, config, seed=3)
    return folder


@pytest.fixture(scope="session")
def oracle(tiny):
    """transformers' own model over the same checkpoint, in float32."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    # As ignore_eos does: the end-of-sequence token is a token like any other.
    model.generation_config.eos_token_id = None
    return model
