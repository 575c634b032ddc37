"""A model's logits as the ranks of a layout compute them: what a pool of ranks is asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from upcurve.engine.build import build_engine, build_follower
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.fidelity.forced import ForcedEngine, Passage
from upcurve.engine.fidelity.pool import Place, RankPool

WAIT_SECONDS = 0.001
"""Between two looks whether other replicas need this one."""


def spread_logits(
    pool: RankPool, folder: Path, options: EngineOptions, passages: Mapping[str, Passage]
) -> dict[str, torch.Tensor]:
    """Compute passages together over the ranks of a layout: by name float32 [output, vocab].

    Replicas that share experts have a part of the passages each.

    Args:
        pool: of the ranks of `options.layout`.
        folder: of the checkpoint.
        options: of the engine; the same on every rank.
        passages: by name.

    Raises:
        EngineInputError: the folder, an option or the layout is unusable, or the memory does not
            do.
        RuntimeError: a step failed, or a rank ended.
    """
    parts = pool.call(part_of_logits, folder, options, passages)
    return on_host({name: rows for part in parts for name, rows in part.items()}, passages)


def on_host(
    arrays: Mapping[str, np.ndarray], passages: Mapping[str, Passage]
) -> dict[str, torch.Tensor]:
    """Return the tensors of what ranks have sent, in the order of the passages."""
    return {name: torch.from_numpy(arrays[name]) for name in passages}


def sendable(logits: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return logits as what one process sends to another: tensors would go by shared memory."""
    return {name: rows.cpu().numpy() for name, rows in logits.items()}


def part_of_logits(
    place: Place, folder: Path, options: EngineOptions, passages: Mapping[str, Passage]
) -> dict[str, np.ndarray]:
    """Compute what one rank has to do with the passages.

    Returns:
        Those of its replica on the leader, by name float32 [output, vocab]; none elsewhere.
    """
    layout = options.layout
    ranks, control = place.among(layout), place.control
    if not ranks.leads:
        assert control is not None
        runner = build_follower(folder, options, ranks, control)
        while plan := control.plans.get():
            runner.follow(plan)
        return {}
    forced = ForcedEngine(build_engine(folder, options, ranks, control))
    replica, replicas = ranks.rank // layout.tp, layout.engine_ranks // layout.tp
    names = list(passages)[replica::replicas]
    found = sendable(forced.logits({name: passages[name] for name in names}))
    with place.finished.get_lock():
        place.finished.value += 1
    while ranks.replicas.size > 1 and place.finished.value < replicas:
        if forced.engine.has_work:
            forced.engine.step()
        else:
            time.sleep(WAIT_SECONDS)
    if control is not None:
        control.announce(b"")
    return found
