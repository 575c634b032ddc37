"""What ranks are asked to do in tests."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.engine.model.oracle import CPU, in_pieces, new_memory
from upcurve.engine.model.model import Model, load_model
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.ranks import ALONE, Ranks
from upcurve.engine.switches import Switches


def load(folder: str, off: str, ranks: Ranks) -> Model:
    return load_model(
        Path(folder), device=CPU, dtype=torch.float32, switches=Switches.without(off), ranks=ranks
    )


def logits_of(rank: int, layout: tuple[int, int, int], folder: str, off: str, ids: list[int]):
    ranks = Ranks.of(Layout(*layout), rank)
    if rank >= ranks.layout.engine_ranks:
        return None
    model = load(folder, off, ranks)
    return in_pieces(model, new_memory(model), ids, [7, len(ids) - 9, 1, 1])


def alone(folder: Path, off: str, ids: list[int]) -> torch.Tensor:
    model = load(str(folder), off, ALONE)
    return in_pieces(model, new_memory(model), ids, [7, len(ids) - 9, 1, 1])
