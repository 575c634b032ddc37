"""Processes that are ranks over gloo: started once, asked many times."""

from __future__ import annotations

import multiprocessing
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

RANKS = 8


class RankPool:
    """Eight processes on loopback; every one of them calls each function that is asked for."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(RANKS):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, port), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def call(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return what `function(rank, *arguments)` gives on each rank."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        answers = [pipe.recv() for pipe in self._pipes]
        for error, _ in answers:
            assert error is None, error
        return [answer for _, answer in answers]

    def close(self) -> None:
        """End all processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(5)
            process.kill()


def _serve(pipe: Connection, rank: int, port: int) -> None:
    import torch

    from upcurve.engine.parallel.rendezvous import join

    torch.set_num_threads(1)
    join("127.0.0.1", port, rank, RANKS, "gloo")
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((None, function(rank, *arguments)))
        except Exception:
            pipe.send((traceback.format_exc(), None))
