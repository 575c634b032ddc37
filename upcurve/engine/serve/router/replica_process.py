"""Replicas as processes of this machine, each a server of its own on a free port."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Literal

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.parallel.seat import Node
from upcurve.engine.serve import rank_process, remote
from upcurve.engine.serve.announcement import Announcement
from upcurve.engine.serve.closing import Closing, join
from upcurve.engine.serve.engine_process import exit_when_closed
from upcurve.engine.serve.http_server import CLOSE_SECONDS
from upcurve.engine.serve.launch import serve

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
"""Where all of them listen."""

Kind = Literal["replica", "prefill worker", "decode worker"]

REAP_SECONDS = 1.0
"""At most between what is seen of a process' end and the end."""
EXIT_SECONDS = remote.EXIT_SECONDS + rank_process.EXIT_SECONDS + CLOSE_SECONDS + 5.0
"""How long processes that are told to end may take before they are killed: longer than each waits
for its own, which would stay behind."""


@dataclass(frozen=True, slots=True)
class Start:
    """What one process is started with."""

    options: EngineOptions
    node: Node
    """Its ranks."""
    meeting: socket.socket | None = None
    """Listens where all ranks meet, on the first replica of several that share their experts."""
    transfers: socket.socket | None = None
    """Listens where decode workers connect, on a prefill worker."""
    port: int = 0
    """Of its HTTP; 0 picks a free one."""


def run(
    life: socket.socket,
    told: Connection,
    name: str,
    folder: Path,
    start: Start,
    serving: dict[str, Any],
) -> None:
    """Serve one replica; the target of the process.

    Args:
        life: to the parent, which closes it when this process shall end at once.
        told: gets the announcement, or the parts of an EngineInputError.
        name: of the replica, in what it logs.
        folder: of the checkpoint.
        start: what it is.
        serving: more of `launch.serve`.
    """
    # A terminal signals its whole group; the router says when to end.
    os.setsid()
    # What a signal to this process meant before is of no account here.
    threading.Thread(target=exit_when_closed, args=(life,), daemon=True).start()
    form = f"upcurve: {name}: %(message)s"
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=form)
    try:
        code = serve(
            folder,
            start.options,
            host=HOST,
            port=start.port,
            drain_seconds=0.0,
            node=start.node,
            meeting=start.meeting,
            transfers=start.transfers,
            announce=told.send,
            **serving,
        )
    except EngineInputError as error:
        told.send((error.field, error.problem, error.mend))
        code = 2
    sys.exit(code)


class ReplicaProcesses(Closing):
    """The replicas that this process has started; they end with it.

    As a context manager: they are gone at the end of the block.
    """

    def __init__(
        self,
        folder: Path,
        starts: Sequence[Start],
        serving: dict[str, Any],
        kind: Kind = "replica",
    ) -> None:
        self.kind = kind
        self._folder = folder
        self._starts = list(starts)
        self._serving = serving
        self.announcements: list[Announcement] = []
        """Of each, once all serve."""
        begun = [self._begin(number) for number in range(len(starts))]
        self._lives = [life for life, _, _ in begun]
        self._told = [told for _, told, _ in begun]
        self._processes = [process for _, _, process in begun]

    def _begin(self, number: int) -> tuple[socket.socket, Connection, SpawnProcess]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = socket.socketpair()
        told, tell = context.Pipe(duplex=False)
        name, start = f"{self.kind} {number}", self._starts[number]
        with theirs, tell:
            # No daemon: it has children of its own.
            process = context.Process(
                target=run,
                args=(theirs, tell, name, self._folder, start, self._serving),
                name=f"upcurve-{self.kind.partition(' ')[0]}-{number}",
            )
            process.start()
        return ours, told, process

    def wait(self) -> bool:
        """Wait until all serve; False where one has ended.

        Raises:
            EngineInputError: the model or an option is unusable.
        """
        found: dict[int, Announcement] = {}
        while len(found) < len(self._told):
            loading = [told for number, told in enumerate(self._told) if number not in found]
            # One that has ended may be what another waits for.
            ready = multiprocessing.connection.wait([*loading, *self.sentinels])
            for number, told in enumerate(self._told):
                if told not in ready:
                    continue
                try:
                    answer = told.recv()
                except EOFError:
                    return False
                if isinstance(answer, tuple):
                    raise EngineInputError(*answer)
                found[number] = answer
            if self.running < len(self._processes):
                return False
        self.announcements = [each for _, each in sorted(found.items())]
        return True

    def reap(self, number: int) -> None:
        """Learn how one ended whose sentinel can be read, which is a moment before its end."""
        self._processes[number].join(REAP_SECONDS)

    def left(self, number: int) -> bool:
        """Whether anything is left of the engine of one that has ended, such as its memory."""
        return any(_exists(pid) for pid in self.announcements[number].processes.values())

    def restart(self, number: int) -> None:
        """Start one anew that has ended and shares no experts, on the same ports.

        Raises:
            OSError: there is no process, or somebody has the port where decode workers connect.
        """
        known = self.announcements[number]
        with _listen_again(known) as transfers:
            start = replace(self._starts[number], port=_port(known.url), transfers=transfers)
            self._lives[number].close()
            self._told[number].close()
            self._starts[number] = start
            begun = self._begin(number)
        self._lives[number], self._told[number], self._processes[number] = begun

    def teller(self, number: int) -> int:
        """Return the descriptor that can be read once `hear` waits for nothing."""
        return self._told[number].fileno()

    def hear(self, number: int) -> str | None:
        """Hear from one that was started anew; return why it does not serve, in words."""
        try:
            answer = self._told[number].recv()
        except EOFError:
            return "it ended while it was loading"
        if isinstance(answer, tuple):
            return str(EngineInputError(*answer))
        self.announcements[number] = answer
        return None

    def ready(self) -> bool:
        """Wait until all serve, and say where; False where one has ended.

        Raises:
            EngineInputError: as `wait`.
        """
        if not self.wait():
            logger.error("a %s ended while it was loading: %s", self.kind, self.ends())
            return False
        for number, each in enumerate(self.announcements):
            logger.info("%s %d serves %s/metrics", self.kind, number, each.url)
        return True

    @property
    def sentinels(self) -> list[int]:
        """Descriptors that can be read once a process has ended."""
        return [process.sentinel for process in self._processes]

    @property
    def running(self) -> int:
        """How many have not ended."""
        return sum(process.exitcode is None for process in self._processes)

    def ends(self) -> str:
        """Return which of them ended, and how, in words."""
        for process in self._processes:
            process.join(0.5)
        return ", ".join(filter(None, map(self.end, range(len(self._processes)))))

    def end(self, number: int) -> str:
        """Return how one of them ended, in words; "" where it has not."""
        code = self._processes[number].exitcode
        if code is None:
            return ""
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return f"{self.kind} {number}: {how}"

    def close(self) -> None:
        """End all: in order where they serve, at once where they do not end."""
        for process in self._processes:
            process.terminate()
        join(self._processes, EXIT_SECONDS)
        for life in self._lives:
            life.close()


def _port(address: str | None) -> int:
    return int(str(address).rpartition(":")[2])


def _listen_again(known: Announcement) -> AbstractContextManager[socket.socket | None]:
    """Listen where decode workers have found a prefill worker; others have no such port."""
    if known.transfers is None:
        return nullcontext()
    return socket.create_server((HOST, _port(known.transfers)))


def _exists(pid: int) -> bool:
    # As the first process of a container, this one inherits those whose parent has ended.
    with suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        # The latter of another user, who has the number now.
        return False
    return True
