from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from models.training.checkpoint import write_checkpoint
from models.training.network import Network
from models.training.shape import Shape
from models.training.text import train_tokenizer

TINY = Shape(
    vocab_size=400,
    hidden_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=8,
    linear_value_head_dim=12,
    num_experts=6,
    num_experts_per_tok=2,
    moe_intermediate_size=20,
)


def random_network(seed: int = 1) -> Network:
    """A network none of whose parameters is zero."""
    network = Network(TINY)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            scale = 0.3 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
            parameter.normal_(0.0, scale, generator=generator)
            if name.endswith("embed_tokens.weight"):
                parameter.mul_(parameter.shape[-1] ** 0.5)
    return network


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TINY.vocab_size, problems=1000)


@pytest.fixture
def network() -> Network:
    return random_network()


@pytest.fixture
def folder(tmp_path: Path, network: Network, tokenizer: Tokenizer) -> Path:
    write_checkpoint(tmp_path / "tiny", network, tokenizer, torch.float32)
    return tmp_path / "tiny"
