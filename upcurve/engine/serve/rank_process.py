"""The processes of the ranks that do not lead: they hear no clients, only their leader."""

from __future__ import annotations

import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from upcurve.engine.errors import EngineInputError
from upcurve.engine.parallel.seat import Seat
from upcurve.engine.serve.closing import Closing, join
from upcurve.engine.serve.engine_process import exit_when_closed

if TYPE_CHECKING:
    from upcurve.engine.execute.options import EngineOptions

INPUT_ERROR = 2
"""Exit code of a rank that cannot use what it was given; it has said what, at most `_WORDS`."""
_WORDS = 2**16
EXIT_SECONDS = 10.0
"""How long processes that are told to end may take before they are killed."""

logger = logging.getLogger(__name__)


def run(life: socket.socket, folder: Path, options: EngineOptions, seat: Seat) -> None:
    """Compute what the leader launches, until it or the parent ends; the target of the process.

    Args:
        life: to the parent, which closes it when this process shall end.
        folder: of the checkpoint.
        options: of the engine.
        seat: of this rank.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="upcurve: %(message)s")
    threading.Thread(target=exit_when_closed, args=(life,), daemon=True).start()

    from upcurve.engine.build import build_follower
    from upcurve.engine.execute.runner import APART_SECONDS
    from upcurve.engine.parallel.rendezvous import meet
    from upcurve.engine.roles.joining import take_part

    # The first rank says who is gone: it is heard everywhere.
    try:
        ranks, control = meet(
            seat,
            options.layout,
            gpu=options.device != "cpu",
            lost=lambda _: os._exit(1),
            told=options.alike,
        )
    except EngineInputError as error:
        _refuse(life, error)
    assert control is not None
    try:
        runner = build_follower(folder, options, ranks, control)
        take_part(folder, runner, options, control)
        while True:
            runner.follow(control.plans.get())
    except EngineInputError as error:
        # The first rank has found the same, unless it is only here.
        time.sleep(1.0)
        control.fail(f"rank {seat.rank}: {error}")
        _refuse(life, error)
    except Exception as error:
        # Where another rank is gone this process is ended meanwhile.
        time.sleep(APART_SECONDS)
        logger.exception("rank %d cannot go on", seat.rank)
        control.fail(f"rank {seat.rank}: {type(error).__name__}: {error}")
        os._exit(1)


def _refuse(life: socket.socket, error: EngineInputError) -> NoReturn:
    life.sendall(json.dumps([error.field, error.problem, error.mend]).encode())
    os._exit(INPUT_ERROR)


class RankProcesses(Closing):
    """The ranks of this machine but the one that speaks to this process; they end with it.

    As a context manager: they are gone at the end of the block.
    """

    def __init__(self, folder: Path, options: EngineOptions, seats: Sequence[Seat]) -> None:
        self._lives: dict[int, socket.socket] = {}
        context = multiprocessing.get_context("spawn")
        self._processes = {}
        for seat in seats:
            ours, theirs = socket.socketpair()
            with theirs:
                process = context.Process(
                    target=run, args=(theirs, folder, options, seat), name=f"upcurve-{seat.rank}"
                )
                process.start()
            self._lives[seat.rank] = ours
            self._processes[seat.rank] = process

    @property
    def sentinels(self) -> list[int]:
        """Descriptors that can be read once a process has ended."""
        return [process.sentinel for process in self._processes.values()]

    @property
    def pids(self) -> dict[str, int]:
        """`rank N` -> id of its process."""
        return {f"rank {rank}": each.pid for rank, each in self._processes.items() if each.pid}

    def wait(self) -> bool:
        """Wait until all have ended, or one has failed; return whether none has.

        Raises:
            EngineInputError: an option or the checkpoint is unusable.
        """
        waiting = dict(self._processes)
        while waiting:
            multiprocessing.connection.wait([each.sentinel for each in waiting.values()])
            for rank, process in list(waiting.items()):
                if process.exitcode is not None:
                    del waiting[rank]
                    if process.exitcode == INPUT_ERROR:
                        raise EngineInputError(*json.loads(self._lives[rank].recv(_WORDS)))
                    if process.exitcode:
                        return False
        return True

    def ends(self) -> str:
        """Return which of them were ended by what, in words; "" where nothing did."""
        words = []
        for rank, process in self._processes.items():
            process.join(0.2)
            code = process.exitcode
            # With 1 they end because another did.
            if code is not None and code < 0:
                words.append(f"rank {rank} was ended by {signal.Signals(-code).name}")
        return ", ".join(words)

    def close(self) -> None:
        """End all."""
        for life in self._lives.values():
            life.close()
        join(self._processes.values(), EXIT_SECONDS)
