"""Eight processes that are ranks over gloo: started once, asked many times."""

from __future__ import annotations

import itertools
import multiprocessing
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

RANKS = 8


class RankPool:
    """Each process calls each function that is asked for."""

    def __init__(self) -> None:
        # One process imports torch, and the ranks are copies of it.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["upcurve.engine.build", "upcurve.engine.parallel.rendezvous"]
        )
        self._pipes: list[Connection] = []
        self._processes = []
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        with listener:
            for rank in range(RANKS):
                ours, theirs = context.Pipe()
                given = listener if rank == 0 else None
                process = context.Process(
                    target=_serve, args=(theirs, rank, port, given), daemon=True
                )
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)

    def call(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return what `function(rank, store, *arguments)` gives on each rank."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        answers: dict[Any, Any] = {}
        while len(answers) < len(self._pipes):
            for pipe in wait([each for each in self._pipes if each not in answers]):
                error, answers[pipe] = pipe.recv()
                if error is not None:
                    # The others may wait for this one for ever.
                    self.close()
                    raise AssertionError(error)
        return [answers[pipe] for pipe in self._pipes]

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.kill()
            process.join()


def _serve(pipe: Connection, rank: int, port: int, listener: socket.socket | None) -> None:
    import torch
    import torch.distributed as dist

    from upcurve.engine.parallel import rendezvous
    from upcurve.engine.parallel.seat import Seat

    torch.set_num_threads(1)
    seat = Seat(rank, RANKS, port=port)
    store = rendezvous._store(seat, listener)
    rendezvous.join(store, seat, "gloo")
    for number in itertools.count():
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((None, function(rank, dist.PrefixStore(str(number), store), *arguments)))
        except Exception:
            pipe.send((traceback.format_exc(), None))


def generate(
    rank: int,
    store: Any,
    folder: Path,
    options: Any,
    prompts: Sequence[Sequence[list[int]]],
    samplings: Sequence[Any],
    shared_scale: float | None = None,
) -> list[list[int]] | None:
    """Generate for the prompts of each replica, as an engine's ranks do.

    Args:
        rank: of this process.
        store: that all share.
        folder: of the model.
        options: of the engine.
        prompts: of each replica.
        samplings: of the prompts.
        shared_scale: what the shared expert counts on each rank, if not what it should.

    Returns:
        The output of each prompt, on the leader of a replica; None elsewhere.
    """
    from upcurve.engine.build import build_engine, build_follower
    from upcurve.engine.parallel.control import Control
    from upcurve.engine.parallel.layout import Share
    from upcurve.engine.parallel.ranks import Ranks
    from upcurve.engine.schedule.request import Request

    layout = options.layout
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
