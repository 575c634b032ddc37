"""Processes that are the ranks of a layout, and compute what they are asked, one after the other.

Starting a process and joining the others takes longer than many a model: here they stay for more.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import torch

from upcurve.engine.errors import EngineInputError
from upcurve.engine.parallel.control import Control
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.ranks import Ranks
from upcurve.engine.parallel.rendezvous import meet
from upcurve.engine.parallel.seat import Seat
from upcurve.engine.serve.closing import Closing, join
from upcurve.engine.serve.engine_process import exit_when_closed

logger = logging.getLogger(__name__)

EXIT_SECONDS = 10.0
"""How long processes that are told to end may take before they are killed."""
LOST_SECONDS = 1.0
"""How long a rank that has lost another waits for being told to end."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one process of a pool computes."""

    ranks: Ranks
    """In the layout that the pool was made for."""
    control: Control | None
    """Connections to the others; None where there are none."""
    finished: Synchronized[int]
    """Replicas that have computed what was theirs, where they share experts."""
    others: dict[Layout, Ranks] = field(default_factory=dict)
    """In other layouts that were asked for."""

    def among(self, layout: Layout) -> Ranks:
        """Return this rank in a layout; all have to call.

        Raises:
            ValueError: its ranks would need other connections.
        """
        own = self.ranks.layout
        if layout == own:
            return self.ranks
        if (layout.tp, layout.dp) != (own.tp, 1):
            raise ValueError(f"{layout} is not for ranks that met as {own}")
        if layout not in self.others:
            through_host = not self.ranks.capturable
            ranks = Ranks.of(layout, self.ranks.rank, through_host=through_host)
            self.others[layout] = ranks
        return self.others[layout]


class RankPool(Closing):
    """One process for each rank of a layout; each calls each function that is asked for.

    Other layouts of as many ranks (`ep`) do as well. Replicas that share experts agree on their
    steps over connections that one engine keeps: their pool computes one model.

    As a context manager: the processes are gone at the end of the block; they end with this one.
    """

    def __init__(self, layout: Layout, *, gpu: bool) -> None:
        """Start the processes, which begin to meet.

        Args:
            layout: over whose ranks engines will be spread.
            gpu: compute on GPUs, one for each rank, if there are any.
        """
        # Never by fork: a copy of a process that has used a GPU cannot use it.
        context = multiprocessing.get_context("spawn")
        # It is gone once nobody here holds it.
        self._finished = context.Value("i", 0)
        count = layout.engine_ranks
        self._pipes: list[Connection] = []
        self._processes = []
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            for rank in range(count):
                seat = Seat(rank, count, rank, port=port)
                ours, theirs = context.Pipe()
                given = listener if rank == 0 and count > 1 else None
                process = context.Process(
                    target=_serve,
                    args=(theirs, seat, layout, gpu, given, self._finished),
                    name=f"upcurve-{rank}",
                    daemon=True,
                )
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)

    def call(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return what `function(place, *arguments)` gives on each rank.

        All of it is pickled. After an error the pool is closed: the others may wait for ever.

        Raises:
            EngineInputError: raised there.
            RuntimeError: anything else was, or a process ended.
        """
        answers: dict[Connection, Any] = {}
        try:
            for pipe in self._pipes:
                pipe.send((function, arguments))
            while len(answers) < len(self._pipes):
                waiting = [each for each in self._pipes if each not in answers]
                for ready in wait(waiting):
                    assert isinstance(ready, Connection)
                    answers[ready], refused, failed = ready.recv()
                    if refused is not None:
                        raise EngineInputError(*refused)
                    if failed is not None:
                        raise RuntimeError(failed)
        except (EOFError, OSError) as error:
            self.close()
            raise RuntimeError("a rank ended") from error
        except Exception:
            self.close()
            raise
        return [answers[pipe] for pipe in self._pipes]

    def close(self) -> None:
        """End all processes."""
        for pipe in self._pipes:
            pipe.close()
        join(self._processes, EXIT_SECONDS)


def _serve(
    pipe: Connection,
    seat: Seat,
    layout: Layout,
    gpu: bool,
    listener: socket.socket | None,
    finished: Synchronized[int],
) -> None:
    # A terminal signals the whole group; the pipe says when to end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=exit_when_closed, args=(pipe,), daemon=True).start()

    def lost(reason: str) -> None:
        # Where all are told to end, this process is gone meanwhile.
        time.sleep(LOST_SECONDS)
        # What waits for the other waits for ever.
        logger.error("rank %d: %s", seat.rank, reason)
        os._exit(1)

    ranks, control = meet(seat, layout, gpu=gpu, lost=lost, listener=listener)
    place = Place(ranks, control, finished)
    # What is imported stays: looking through it for garbage would take 0.1 s after each call.
    gc.freeze()
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            # The others may be gone already.
            os._exit(0)
        answer, refused, failed = None, None, None
        try:
            answer = function(place, *arguments)
        except EngineInputError as error:
            refused = error.field, error.problem, error.mend
        except Exception:
            failed = f"rank {seat.rank}: {traceback.format_exc()}"
        pipe.send((answer, refused, failed))
        del answer
        # Graphs and their engines hold each other: their memory is the next model's.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
