"""Dummy weights by seed, and small random-weight checkpoints of the real architecture."""

from __future__ import annotations

import json
import math
import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.weights import ModelWeights, weight_map

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def fill_dummy(weights: ModelWeights, seed: int) -> None:
    """Draw every parameter at random, so that activations stay of order one.

    Experts are chosen evenly, because router rows are independent; decays spread over the range
    that trained models use (time constants of about 1 to 1,000 tokens).
    """
    for name, tensor in weight_map(weights).items():
        generator = torch.Generator(tensor.device).manual_seed(seed)
        seed += 1
        last = name.rsplit(".", 2)[-2:]
        if last == ["linear_attn", "A_log"]:
            tensor.uniform_(1.0, 16.0, generator=generator).log_()
        elif last == ["linear_attn", "dt_bias"]:
            step = tensor.uniform_(math.log(1e-3), math.log(1e-1), generator=generator).exp_()
            tensor.copy_(step + torch.log(-torch.expm1(-step)))
        elif name.endswith("linear_attn.norm.weight"):
            tensor.normal_(1.0, 0.1, generator=generator)
        elif tensor.dim() == 1:
            tensor.normal_(0.0, 0.1, generator=generator)
        elif name == "embed_tokens.weight":
            tensor.normal_(0.0, 1.0, generator=generator)
        else:
            tensor.normal_(0.0, tensor.shape[-1] ** -0.5, generator=generator)
    weights.prepare()


def small_config(**changes: Any) -> dict[str, Any]:
    """Return the config.json of a small model of the real architecture, some fields changed."""
    return {
        "architectures": ["Qwen3_5MoeForCausalLM"],
        "model_type": "qwen3_5_moe_text",
        "vocab_size": 4096,
        "hidden_size": 256,
        "num_hidden_layers": 8,
        "full_attention_interval": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000_000.0,
            "partial_rotary_factor": 0.25,
        },
        "max_position_embeddings": 4096,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 8,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 64,
        "eos_token_id": 0,
        "dtype": "float32",
        **changes,
    }


def write_checkpoint(
    folder: Path, config: dict[str, Any], *, seed: int, dtype: torch.dtype = torch.float32
) -> None:
    """Write a random-weight checkpoint that this engine and transformers load.

    Args:
        folder: created if missing; files of the same names are replaced.
        config: a config.json object, as `small_config` returns.
        seed: of the weights.
        dtype: of the matrices in the file.
    """
    shapes = ModelShapes.from_config(config)
    weights = ModelWeights.empty(shapes, torch.device("cpu"), dtype)
    fill_dummy(weights, seed)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        ("" if name.startswith("lm_head") else "model.") + name: tensor.contiguous().clone()
        for name, tensor in weight_map(weights).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in (
        ("config.json", config),
        ("generation_config.json", {"eos_token_id": shapes.end_of_sequence_ids[0]}),
        (
            "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": SPECIAL_TOKENS[0],
                "chat_template": CHAT_TEMPLATE,
            },
        ),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    train_tokenizer(shapes.vocab_size).save(str(folder / "tokenizer.json"))


def train_tokenizer(vocab_size: int) -> Tokenizer:
    """Train a byte-level byte-pair tokenizer on the topics of Python's own help."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_english(), trainer)
    return tokenizer


def _english() -> Iterator[str]:
    yield from pydoc_data.topics.topics.values()
