"""Dummy weights by seed, and small random-weight checkpoints of the real architecture."""

from __future__ import annotations

import json
import math
import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from upcurve.engine.kernels import block_scaled
from upcurve.engine.model.matrix import Rows, pieces
from upcurve.engine.model.quantization import BLOCK_SIZE
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.sharding import Cuts, take, whole_shape
from upcurve.engine.model.weight_map import Target, weight_map
from upcurve.engine.model.weights import ModelWeights

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def fill_dummy(weights: ModelWeights, seed: int) -> None:
    """Draw every parameter at random, so that activations stay of order one.

    Experts are chosen evenly, because router rows are independent; decays spread over the range
    that trained models use (time constants of about 1 to 1,000 tokens). A rank draws the whole
    model, tensor by tensor, and keeps its part: a seed gives the same model in every layout.
    """
    dtype = weights.embedding.dtype
    for name, target in weight_map(weights).items():
        generator = torch.Generator(weights.embedding.device).manual_seed(seed)
        seed += 1
        cuts = weights.sharding.cuts(name)
        if cuts and len(target.shape) > 1:
            _fill_part(name, target, cuts, generator, dtype)
        elif cuts and isinstance(target, torch.Tensor):
            whole = torch.empty(whole_shape(target.shape, cuts), device=generator.device)
            _fill_vector(whole, name, generator)
            target.copy_(take(whole, cuts))
        elif isinstance(target, Rows):
            for piece in pieces(target.shape):
                part = target[piece]
                drawn = torch.empty(part.shape, device=generator.device, dtype=dtype)
                part.fill(_fill_matrix(drawn, generator))
        elif target.dim() == 1:
            _fill_vector(target, name, generator)
        elif name == "embed_tokens.weight":
            target.normal_(0.0, 1.0, generator=generator)
        else:
            # In the same pieces as a quantised one: a seed gives the same values in both.
            for piece in pieces(target.shape):
                _fill_matrix(target[piece], generator)
    weights.prepare()


def _fill_vector(vector: torch.Tensor, name: str, generator: torch.Generator) -> None:
    if name.endswith("linear_attn.A_log"):
        vector.uniform_(1.0, 16.0, generator=generator).log_()
    elif name.endswith("linear_attn.dt_bias"):
        step = vector.uniform_(math.log(1e-3), math.log(1e-1), generator=generator).exp_()
        vector.copy_(step + torch.log(-torch.expm1(-step)))
    elif name.endswith("linear_attn.norm.weight"):
        vector.normal_(1.0, 0.1, generator=generator)
    else:
        vector.normal_(0.0, 0.1, generator=generator)


def _fill_part(
    name: str, target: Target, cuts: Cuts, generator: torch.Generator, dtype: torch.dtype
) -> None:
    """Draw the pieces of a whole tensor, one after the other, and keep what a rank has of each."""
    shape = whole_shape(target.shape, cuts)
    is_experts = ".experts." in name
    mine = range(shape[0])
    if is_experts and cuts[0].dim == 0:
        mine, cuts = range(*cuts[0].pieces[0]), cuts[1:]
    for piece in pieces(shape) if is_experts else [slice(None)]:
        here = range(shape[0])[piece]
        drawn = torch.empty(len(here), *shape[1:], device=generator.device, dtype=dtype)
        if name.endswith("conv1d.weight"):
            # Numbers are drawn in the order of memory, which has the channels innermost.
            drawn = drawn.new_empty(shape[2], shape[0]).t().unsqueeze(1)
        if name == "embed_tokens.weight":
            drawn.normal_(0.0, 1.0, generator=generator)
        else:
            _fill_matrix(drawn, generator)
        place = slice(None)
        if is_experts:
            first, stop = max(here.start, mine.start), min(here.stop, mine.stop)
            if first >= stop:
                continue
            drawn = drawn[first - here.start : stop - here.start]
            place = slice(first - mine.start, stop - mine.start)
        if isinstance(target, Rows):
            (target[place] if is_experts else target).fill(take(drawn, cuts))
        else:
            target[place].copy_(take(drawn, cuts))


def _fill_matrix(matrix: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw what maps vectors of order one to vectors of order one."""
    return matrix.normal_(0.0, matrix.shape[-1] ** -0.5, generator=generator)


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
    folder: Path,
    config: dict[str, Any],
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    quantization: Literal["none", "fp8"] = "none",
) -> None:
    """Write a random-weight checkpoint that this engine and transformers load.

    Args:
        folder: created if missing; files of the same names are replaced.
        config: a config.json object, as `small_config` returns.
        seed: of the weights.
        dtype: of the matrices in the file.
        quantization: "fp8" writes the format of the published FP8 checkpoints, one tensor for each
            expert's matrix and one for its scales; transformers wants sizes that fill the blocks.
    """
    shapes = ModelShapes.from_config(config)
    weights = ModelWeights.empty(shapes, torch.device("cpu"), dtype)
    fill_dummy(weights, seed)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        ("" if name.startswith("lm_head") else "model.") + name: tensor.contiguous().clone()
        for name, tensor in weight_map(weights).items()
        if isinstance(tensor, torch.Tensor)
    }
    if quantization == "fp8":
        tensors, config = _quantized(tensors, config, shapes)
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


Tensors = dict[str, torch.Tensor]


def _quantized(
    tensors: Tensors, config: dict[str, Any], shapes: ModelShapes
) -> tuple[Tensors, dict[str, Any]]:
    """Return tensors and config of the FP8 checkpoint of a plain one."""
    meta = ModelWeights.empty(shapes, torch.device("meta"), torch.float32, quantized=True)
    table = weight_map(meta)
    out: Tensors = {}
    kept = []
    for name, tensor in tensors.items():
        if not isinstance(table[name.removeprefix("model.")], Rows):
            out[name] = tensor
            kept += [name.removesuffix(".weight")] if tensor.dim() == 2 else []
            continue
        for single, matrix in _single_matrices(name, tensor):
            out[single], out[f"{single}_scale_inv"] = block_scaled.quantize_blocks(matrix)
    return out, {
        **config,
        "quantization_config": {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": BLOCK_SIZE,
            "modules_to_not_convert": kept,
        },
    }


def _single_matrices(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a matrix, or one expert's matrices after the other, by their names."""
    if tensor.dim() == 2:
        yield name, tensor
        return
    stem, fused = name.rsplit(".", 1)
    kinds = ["down_proj"] if fused == "down_proj" else ["gate_proj", "up_proj"]
    for expert, matrix in enumerate(tensor):
        for kind, part in zip(kinds, matrix.chunk(len(kinds)), strict=True):
            yield f"{stem}.{expert}.{kind}.weight", part


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
