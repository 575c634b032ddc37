"""The checkpoint folder that transformers and the engine load."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from tokenizers import Tokenizer

from models.training.network import Network
from models.training.shape import Shape
from models.training.text import CHAT_TEMPLATE, END, END_OF_TEXT, START, ends
from upcurve.files import write_whole

KEPT = ("A_log", "dt_bias")
"""Parameters that stay float32, as in published checkpoints."""


def exported(network: Network, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return copies of all parameters on the CPU, as a checkpoint has them."""
    return {
        name: value.detach()
        .to("cpu", torch.float32 if name.endswith(KEPT) else dtype, copy=True)
        .contiguous()
        for name, value in network.state_dict().items()
    }


def write_checkpoint(
    folder: Path, network: Network, tokenizer: Tokenizer, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write weights, configuration and tokenizer; each file is there whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = save(exported(network, dtype), metadata={"format": "pt"})
    write_whole(folder / "model.safetensors", lambda file: file.write(weights))
    stops = ends(tokenizer)
    kind = str(dtype).removeprefix("torch.")
    write_json(folder / "config.json", network.shape.config(ends=stops, dtype=kind))
    write_json(folder / "generation_config.json", {"do_sample": False, "eos_token_id": stops})
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": END_OF_TEXT,
            "additional_special_tokens": [START],
            "clean_up_tokenization_spaces": False,
            "model_max_length": network.shape.max_position_embeddings,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    text = tokenizer.to_str(pretty=False)
    write_whole(folder / "tokenizer.json", lambda file: file.write(text.encode()))


def read_checkpoint(folder: Path) -> tuple[Network, Tokenizer]:
    """Return network, in float32, and tokenizer of a folder that `write_checkpoint` wrote."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= config["rope_parameters"]
    network = Network(Shape(**{field.name: config[field.name] for field in fields(Shape)}))
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network, Tokenizer.from_file(str(folder / "tokenizer.json"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(value, indent=2) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))
