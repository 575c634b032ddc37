"""The engine's process as the HTTP side sees it."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import signal
import socket
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.engine import Engine
from upcurve.engine.schedule.request import Request
from upcurve.engine.serve import engine_process
from upcurve.engine.serve.closing import Closing, join
from upcurve.engine.serve.messages import (
    HEAD_BYTES,
    Abort,
    Broken,
    Capacity,
    Command,
    Frames,
    Refused,
    Report,
    Stop,
    Submit,
    decode_report,
    frame,
)

REPORT_SECONDS = 3.0
"""How long an engine may take to say why a process that it needs has ended."""
EXIT_SECONDS = 10.0
"""How long a process that is told to end may take before it is killed."""


class EngineEndedError(RuntimeError):
    """The engine's process ended by itself."""


class RemoteEngine(Closing):
    """An engine in a process of its own; it ends with this one, however this one ends.

    As a context manager: the process is gone at the end of the block.
    """

    capacity: Capacity

    def __init__(
        self,
        build: Callable[[], Engine] | engine_process.Load,
        listener: socket.socket | None = None,
        transfers: socket.socket | None = None,
    ) -> None:
        """Start the process, which begins to load; `wait` for it.

        Args:
            build: picklable; called there.
            listener: listens where the ranks meet, if the engine has several; it is handed over.
            transfers: listens where decode workers connect, of a prefill worker; likewise.
        """
        self._connection, theirs = socket.socketpair()
        with theirs:
            # Never by fork: a copy of a process that has used a GPU cannot use it.
            self.process = multiprocessing.get_context("spawn").Process(
                target=engine_process.run,
                args=(theirs, pickle.dumps(build), listener, transfers),
                name="upcurve-engine",
            )
            self.process.start()
        self._transport: asyncio.WriteTransport | None = None
        self._receive: Callable[[Sequence[Report]], None] = lambda _: None
        self._frames = Frames()

    def wait(self, needed: Sequence[int] = ()) -> None:
        """Wait until the engine is loaded.

        Args:
            needed: sentinels of processes that it may wait for, and would for ever if one ended.

        Raises:
            EngineInputError: an option or the checkpoint is unusable.
            EngineEndedError: the process ended, for another reason, or one that it needs has.
        """
        if self._connection not in wait([self._connection, *needed]) and not wait(
            [self._connection], REPORT_SECONDS
        ):
            raise EngineEndedError("a rank ended while it was loading")
        head = self._read(HEAD_BYTES)
        report = decode_report(self._read(int.from_bytes(head, "little")))
        if isinstance(report, Refused):
            raise EngineInputError(report.field, report.problem, report.mend)
        if isinstance(report, Broken):
            raise EngineEndedError(report.reason)
        assert isinstance(report, Capacity)
        self.capacity = report

    async def start(self, receive: Callable[[Sequence[Report]], None]) -> None:
        """Begin to receive reports; the last one is `Broken`, unless `stop` comes before it."""
        self._receive = receive
        self._connection.setblocking(False)
        self._transport, _ = await asyncio.get_running_loop().create_unix_connection(
            lambda: _Protocol(self._arrived, self._lost), sock=self._connection
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self.process.pid is not None, "it was started"
        return self.process.pid

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self._send(Submit.of(request))

    def abort(self, request_id: str) -> None:
        """End a request."""
        self._send(Abort(request_id))

    async def stop(self) -> None:
        """End the process, with all that it computes."""
        self._receive = lambda _: None
        if self._transport is not None:
            self._send(Stop())
            await asyncio.to_thread(self.process.join, EXIT_SECONDS)
            # It has been told, so it need not be told again; nothing happens where it has ended.
            self.process.kill()
            self._transport.abort()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End the process; nothing happens where it has ended."""
        self._connection.close()
        join([self.process], EXIT_SECONDS)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._connection.recv(count - len(data))
            if not part:
                raise EngineEndedError(f"it ended while it was loading: {self._end()}")
            data += part
        return data

    def _send(self, command: Command) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(frame(command))

    def _arrived(self, data: bytes) -> None:
        self._receive([decode_report(each) for each in self._frames.feed(data)])

    def _lost(self) -> None:
        # Where `stop` or an earlier report has told the reason already, this one is not heard.
        self._receive([Broken(f"its process ended: {self._end()}")])

    def _end(self) -> str:
        # Its connection closes a moment before it can be waited for, or longer on a busy machine.
        self.process.join(EXIT_SECONDS)
        code = self.process.exitcode
        if code is None:
            return "without closing its files"
        return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


class _Protocol(asyncio.Protocol):
    def __init__(self, arrived: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self._arrived = arrived
        self._lost = lost

    def data_received(self, data: bytes) -> None:
        self._arrived(data)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._lost()
