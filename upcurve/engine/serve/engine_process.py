"""The process of the engine: it shares no interpreter with HTTP, which would delay steps."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upcurve.engine.errors import EngineInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

    from upcurve.engine.execute.engine import Engine
    from upcurve.engine.execute.loop import EngineLoop
    from upcurve.engine.execute.options import EngineOptions
    from upcurve.engine.execute.role import Role
    from upcurve.engine.parallel.control import Control
    from upcurve.engine.parallel.seat import Seat
    from upcurve.engine.roles.links import Link

SWITCH_SECONDS = 5e-4
"""Longest time that the thread which reads commands keeps the engine's thread waiting."""
READ_BYTES = 2**18
PART_SECONDS = 2.0
"""How long an engine that ends waits for those who may still write into its memory."""


@dataclass(frozen=True, slots=True)
class Load:
    """Loads a checkpoint folder as the leader of a replica: what `run` builds for a server."""

    folder: Path
    options: EngineOptions
    seat: Seat

    def __call__(
        self,
        listener: socket.socket | None,
        transfers: socket.socket | None,
        lost: Callable[[str], None],
        changed: Callable[[Sequence[Link]], None],
    ) -> tuple[Engine, Control | None]:
        """Meet the other ranks, load, and take the part of `options.role`.

        Raises:
            EngineInputError: as `meet`, `build_engine` and `roles.joining.lead`.
        """
        # Only here: the HTTP side has no use for torch.
        from upcurve.engine.build import build_engine
        from upcurve.engine.parallel.rendezvous import meet
        from upcurve.engine.roles.joining import lead, own_address

        options = self.options
        if options.role == "decode":
            # An unknown host is said before minutes of loading.
            own_address(options.prefill_addresses)
        ranks, control = meet(
            self.seat,
            options.layout,
            gpu=options.device != "cpu",
            lost=lost,
            listener=listener,
            told=options.alike,
        )
        try:
            engine = build_engine(self.folder, options, ranks, control)
            lead(self.folder, engine, options, control, transfers, changed)
            return engine, control
        except EngineInputError:
            if control is not None:
                control.part()
            raise


def run(
    connection: socket.socket,
    builder: bytes,
    listener: socket.socket | None = None,
    transfers: socket.socket | None = None,
) -> None:
    """Build an engine, run it, and end with the connection; the target of the process.

    Args:
        connection: to the HTTP side; frames of `messages` both ways.
        builder: a pickled function that returns the engine, or a pickled `Load`. What it needs is
            imported only once this process ignores signals and watches the connection.
        listener: listens where the ranks meet.
        transfers: listens where decode workers connect, of a prefill worker.
    """
    # A terminal and a process manager signal the whole group; the HTTP side says when to end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_SECONDS)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="upcurve: %(message)s")
    threading.Thread(target=exit_when_closed, args=(connection,), daemon=True).start()

    from upcurve.engine.roles.decode import DecodeRole
    from upcurve.engine.serve.messages import Broken, Capacity, PrefillWorkers, Refused, frame
    from upcurve.engine.serve.reporter import Reporter

    outbox = Outbox(connection)

    def lost(reason: str) -> None:
        # Nothing that waits for the other ranks can be waited for.
        outbox.put(frame(Broken(reason)))
        os._exit(1)

    told = threading.Event()

    def changed(links: Sequence[Link]) -> None:
        # The first report is another.
        if told.is_set():
            outbox.put(frame(PrefillWorkers.of(links)))

    control = None
    try:
        build = pickle.loads(builder)  # noqa: S301 - from the process that started this one
        if isinstance(build, Load):
            engine, control = build(listener, transfers, lost, changed)
        else:
            engine = build()
    except EngineInputError as error:
        connection.sendall(frame(Refused(error.field, error.problem, error.mend)))
        return
    # What is loaded stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    loop = Reporter(engine, lambda report: outbox.put(frame(report))).loop
    outbox.put(frame(Capacity.of(engine)))
    told.set()
    if isinstance(engine.role, DecodeRole):
        changed(engine.role.links.all)
    loop.start()
    if _obey(connection, loop):
        if engine.role is not None:
            parting = threading.Thread(target=_part, args=(loop, engine.role), daemon=True)
            parting.start()
            parting.join(PART_SECONDS)
        if control is not None:
            control.part()
        os._exit(0)


def _part(loop: EngineLoop, role: Role) -> None:
    """End what others still read or write, as far as they say so in time."""
    loop.stop()
    while role.kept:
        loop.engine.step()
        time.sleep(0.01)
    role.close()


def _obey(connection: socket.socket, loop: EngineLoop) -> bool:
    """Hand commands to the engine until there are no more; return whether the last was to stop."""
    from upcurve.engine.serve.messages import Frames, Stop, Submit, decode_command

    frames = Frames()
    # Where the other side is gone, `_exit_when_closed` ends this process, if this does not.
    with suppress(ConnectionResetError):
        while data := connection.recv(READ_BYTES):
            for message in frames.feed(data):
                command = decode_command(message)
                if isinstance(command, Submit):
                    loop.submit(command.request())
                elif isinstance(command, Stop):
                    return True
                else:
                    loop.abort(command.request_id)
    return False


def exit_when_closed(connection: socket.socket | Connection) -> None:
    """End the process at once when the other side is gone, even while a model is being loaded."""
    hang_up = select.poll()
    hang_up.register(connection, 0)
    hang_up.poll()
    os._exit(0)


class Outbox:
    """Sends frames in order; whoever puts one never waits for a reader that is late."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._late: deque[memoryview] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._send_late, daemon=True).start()

    def put(self, data: bytes) -> None:
        """Send a frame, or leave to a thread what the socket does not take now."""
        with self._changed:
            sent = 0 if self._late else self._try(data)
            if sent < len(data):
                self._late.append(memoryview(data)[sent:])
                self._changed.notify()

    def _try(self, data: bytes) -> int:
        try:
            return self._connection.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            # The other side is gone, and with it this process.
            return len(data)

    def _send_late(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._late)
                data = self._late[0]
            try:
                self._connection.sendall(data)
            except OSError:
                return
            with self._changed:
                self._late.popleft()
