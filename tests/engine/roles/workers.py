"""Engines with their ranks in processes of their own, as servers start them, without HTTP."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.ports import free_port
from upcurve.engine.execute.event import Event
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.execute.role import TransferCounts
from upcurve.engine.parallel.seat import Node
from upcurve.engine.schedule.request import Request, SamplingParameters
from upcurve.engine.serve.engine_process import Load
from upcurve.engine.serve.messages import (
    Abort,
    Broken,
    Frames,
    PrefillWorker,
    PrefillWorkers,
    Status,
    Step,
    Submit,
    decode_report,
    frame,
)
from upcurve.engine.serve.rank_process import RankProcesses
from upcurve.engine.serve.remote import RemoteEngine

WAIT_SECONDS = 120.0


class Worker:
    """One engine: requests in, tokens out."""

    def __init__(self, folder: Path, options: EngineOptions, port: int = 0) -> None:
        self.tokens: dict[str, list[int]] = {}
        self.events: dict[str, list[Event]] = {}
        self.status = Status()
        self.steps = 0
        self.prefill_workers: list[PrefillWorker] = []
        self.broken: str | None = None
        self._changed = threading.Condition()
        self._transfers = None
        if options.role == "prefill":
            # Another may be started there: nobody else gets it meanwhile.
            self._transfers = socket.create_server(("127.0.0.1", port or free_port()))
            self.address = f"127.0.0.1:{self._transfers.getsockname()[1]}"
        node = Node(0, options.tp, options.tp, "127.0.0.1", 0)
        self._meeting = socket.create_server(("127.0.0.1", 0)) if options.tp > 1 else None
        first, *others = node.seats(self._meeting.getsockname()[1] if self._meeting else None)
        self._ranks = RankProcesses(folder, options, others)
        self._engine = RemoteEngine(Load(folder, options, first), self._meeting, self._transfers)
        for each in (self._meeting, self._transfers):
            if each is not None:
                each.close()

    def wait(self) -> Worker:
        """Wait until it is loaded."""
        self._engine.wait(self._ranks.sentinels)
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def submit(self, name: str, prompt: list[int], sampling: SamplingParameters) -> None:
        self.tokens[name], self.events[name] = [], []
        self._send(Submit.of(Request(name, prompt, sampling)))

    def abort(self, name: str) -> None:
        self._send(Abort(name))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something that reports tell."""
        with self._changed:
            assert self._changed.wait_for(condition, WAIT_SECONDS), f"never {what}: {self.status}"

    def ended(self, *names: str) -> None:
        """Wait until requests have ended; each does once, and nothing follows."""
        wanted = names or tuple(self.events)
        self.until(
            lambda: all(any(each.finish for each in self.events[name]) for name in wanted),
            f"ended {wanted}",
        )
        for name in wanted:
            assert [bool(each.finish) for each in self.events[name]].index(True) == (
                len(self.events[name]) - 1
            )

    def idle(self) -> None:
        """Wait until all memory is free."""
        self.until(
            lambda: (
                self.status.slots == self.status.pages == 0
                and self.counts.in_flight == self.counts.kept == 0
            ),
            "idle",
        )

    def counted(self, **wanted: int) -> None:
        """Wait until transfers are counted: a moment after the other end knows of them."""
        self.until(
            lambda: all(getattr(self.counts, name) == count for name, count in wanted.items()),
            f"counted {wanted}",
        )

    @property
    def counts(self) -> TransferCounts:
        return self.status.transfers or TransferCounts()

    @property
    def processes(self) -> list[psutil.Process]:
        own = [self._engine.process, *self._ranks._processes.values()]
        return [psutil.Process(each.pid) for each in own]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        for each in self.processes:
            os.kill(each.pid, number)

    def close(self) -> None:
        for process in [self._engine.process, *self._ranks._processes.values()]:
            process.kill()
            process.join()
        self._engine.close()
        self._ranks.close()

    def _send(self, command: Any) -> None:
        self._engine._connection.sendall(frame(command))

    def _read(self) -> None:
        frames = Frames()
        try:
            while data := self._engine._connection.recv(2**16):
                with self._changed:
                    for message in frames.feed(data):
                        self._take(decode_report(message))
                    self._changed.notify_all()
        except OSError:
            return

    def _take(self, report: Any) -> None:
        if isinstance(report, PrefillWorkers):
            self.prefill_workers = report.workers
        elif isinstance(report, Broken):
            self.broken = report.reason
        elif isinstance(report, Step):
            self.status = report.status
            self.steps += report.seconds is not None
            for event in report.events():
                if event.request_id in self.events:
                    self.events[event.request_id].append(event)
                    if event.token is not None:
                        self.tokens[event.request_id].append(event.token)


@contextmanager
def workers(folder: Path, *options: EngineOptions) -> Iterator[list[Worker]]:
    """Start workers side by side: those that decode ask all those that prefill."""
    started: list[Worker] = []
    try:
        prefill = [Worker(folder, each) for each in options if each.role == "prefill"]
        started += prefill
        names = tuple(each.address for each in prefill)
        started += [
            Worker(folder, _asking(each, names)) for each in options if each.role != "prefill"
        ]
        for each in started:
            each.wait()
        for each in started[len(prefill) :]:
            each.until(lambda each=each: connected(each, len(prefill)), "connected")  # type: ignore[misc]
        yield started
    finally:
        for each in started:
            each.close()


def connected(worker: Worker, count: int) -> bool:
    states = [each.state for each in worker.prefill_workers]
    return states == ["up"] * count


def _asking(options: EngineOptions, names: Sequence[str]) -> EngineOptions:
    from dataclasses import replace

    return replace(options, prefill=tuple(names)) if options.role == "decode" else options
