"""Strict streaming loader: every tensor of a checkpoint is used, every parameter is filled."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from upcurve.engine.errors import EngineInputError
from upcurve.engine.model.weights import ModelWeights, single_expert, weight_map

logger = logging.getLogger(__name__)

PREFIXES = ("model.language_model.", "model.")
SKIPPED = ("mtp.", "model.visual.", "visual.")
"""Parts of the published checkpoints that a text engine without speculation has no use for."""


def load_weights(folder: Path, weights: ModelWeights) -> None:
    """Fill `weights` from the safetensors files of a checkpoint folder, one tensor at a time.

    Raises:
        EngineInputError: a file is missing or corrupt, a tensor is unused or has another shape, or
            a parameter stays unfilled; each by name.
    """
    table = weight_map(weights)
    filled: dict[str, set[tuple[int, str]] | None] = {}
    skipped = 0
    for file in checkpoint_files(folder):
        for name, tensor in _tensors(file):
            if name.startswith(SKIPPED):
                skipped += 1
                continue
            tied = name == "lm_head.weight" and name not in table
            # A head that is tied to the embedding is a copy of it: it must only fit.
            target = table["embed_tokens.weight"] if tied else _claim(name, table, filled)
            if tensor.shape != target.shape:
                raise EngineInputError(
                    "model",
                    f"tensor {name} is {list(tensor.shape)}, config.json says {list(target.shape)}",
                    "use the config.json that belongs to the weights",
                )
            if not tied:
                target.copy_(tensor)
    missing = [name for name in table if not _complete(table[name], filled.get(name, set()))]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise EngineInputError(
            "model", f"no tensor fills {missing[0]}{more}", "complete the checkpoint"
        )
    if skipped:
        logger.info("skipped %d tensors of the vision and multi-token-prediction parts", skipped)
    weights.prepare()


def _claim(
    name: str,
    table: dict[str, torch.Tensor],
    filled: dict[str, set[tuple[int, str]] | None],
) -> torch.Tensor:
    """Return the view that a checkpoint tensor fills, and note that it is taken.

    `filled` holds None for a tensor filled whole, else the (expert, part) pairs filled singly.
    """
    short = next((name.removeprefix(each) for each in PREFIXES if name.startswith(each)), name)
    if short in table and short not in filled:
        filled[short] = None
        return table[short]
    found = single_expert(short, table)
    if found is not None:
        fused, expert, part = found
        taken = filled.setdefault(fused, set())
        if taken is not None and (expert, part) not in taken:
            taken.add((expert, part))
            view = table[fused][expert]
            half = len(view) // 2
            return {"gate": view[:half], "up": view[half:], "down": view}[part]
    if short in table or found is not None:
        raise EngineInputError("model", f"tensor {name} comes a second time", "remove one of them")
    raise EngineInputError("model", f"tensor {name} is not part of the model", "remove it")


def _complete(target: torch.Tensor, taken: set[tuple[int, str]] | None) -> bool:
    if taken is None:
        return True
    parts = {part for _, part in taken}
    return bool(parts) and len(taken) == len(target) * (1 if parts == {"down"} else 2)


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, single or sharded.

    Raises:
        EngineInputError: there are none, or the index names one that is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            files = [folder / name for name in sorted(names)]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise EngineInputError(
                "model", f"{index.name} is not a checkpoint index: {error}", "replace it"
            ) from error
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise EngineInputError(
                "model", f"{folder} has no {file.name}", "complete it, or use --load-format dummy"
            )
    return files


def _tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    try:
        with safe_open(file, framework="pt") as reader:
            for name in reader.keys():  # noqa: SIM118
                yield name, reader.get_tensor(name)
    except SafetensorError as error:
        raise EngineInputError(
            "model", f"{file.name} is corrupt: {error}", "fetch it anew"
        ) from error
