"""What the ranks of a pool generate together, in layouts that have fewer ranks as well."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist

from upcurve.engine.build import build_engine, build_follower
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.fidelity.pool import Place
from upcurve.engine.parallel.control import Control
from upcurve.engine.parallel.layout import Share
from upcurve.engine.parallel.ranks import Ranks
from upcurve.engine.schedule.request import Request, SamplingParameters

_NUMBERS = itertools.count()
"""Of calls: all ranks count alike."""


def generate(
    place: Place,
    folder: Path,
    options: EngineOptions,
    prompts: Sequence[Sequence[list[int]]],
    samplings: Sequence[SamplingParameters],
    shared_scale: float | None = None,
) -> list[list[int]] | None:
    """Generate for the prompts of each replica, as an engine's ranks do.

    Args:
        place: in a pool that has as many ranks as the layout, or more; all of them have to call.
        folder: of the model.
        options: of the engine.
        prompts: of each replica.
        samplings: of the prompts.
        shared_scale: what the shared expert counts on each rank, if not what it should.

    Returns:
        The output of each prompt, on the leader of a replica; None elsewhere.
    """
    layout = options.layout
    rank = place.ranks.rank
    store = dist.PrefixStore(str(next(_NUMBERS)), dist.distributed_c10d._get_default_store())
    ranks = Ranks.of(layout, rank)
    if rank >= layout.engine_ranks:
        return None
    control = Control(ranks, store, "127.0.0.1", lambda _: None)
    kept = Share.shared_scale
    if shared_scale is not None:
        Share.shared_scale = shared_scale
    try:
        if not ranks.leads:
            runner = build_follower(folder, options, ranks, control)
            while plan := control.plans.get():
                runner.follow(plan)
            return None
        engine = build_engine(folder, options, ranks, control)
        replica = rank // layout.tp
        requests = [
            Request(str(number), list(prompt), sampling)
            for number, (prompt, sampling) in enumerate(
                zip(prompts[replica], samplings, strict=False)
            )
        ]
        for request in requests:
            engine.add(request)
        keys = [f"done/{each}" for each in range(layout.engine_ranks // layout.tp)]
        told = False
        while not store.check(keys):
            if engine.has_work:
                assert not any(event.finish == "failed" for event in engine.step())
            elif not told:
                store.set(f"done/{replica}", "")
                told = True
            else:
                time.sleep(0.001)
        control.announce(b"")
        return [request.output for request in requests]
    finally:
        Share.shared_scale = kept
