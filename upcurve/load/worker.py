"""A measuring process: takes orders over a pipe, sends its share, returns what it saw."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, MutableSequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any

from upcurve.errors import InputError
from upcurve.load.driver import Driver, Payloads, Share
from upcurve.load.health import ClientHealth, HealthProbe, frozen_garbage
from upcurve.load.probe import probe
from upcurve.load.target import Target
from upcurve.load.trace import RequestTrace
from upcurve.load.workload import Phase, Workload

_BATCH = 256  # requests that are sent over the pipe at once: a whole run would double its memory


@dataclass(frozen=True, slots=True)
class ProbeOrder:
    """Ask the server for one answer; the reply is a `Target`."""

    target: Target
    workload: Workload
    timeout_s: float


@dataclass(frozen=True, slots=True)
class PhaseOrder:
    """Make the first requests of a phase, then await a `StartOrder`; the reply is None."""

    target: Target
    workload: Workload
    phase: Phase
    share: Share
    timeout_s: float


@dataclass(frozen=True, slots=True)
class StartOrder:
    """Run the phase that was prepared; the replies are lists of traces, then a `ClientHealth`."""

    start_ns: int


Order = ProbeOrder | PhaseOrder | StartOrder


class ParentGoneError(Exception):
    """The parent process ended or gave up."""


def work(pipe: Pipe, counters: MutableSequence[int]) -> None:
    """Take orders until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        worker = _Worker(pipe, counters)
        while True:
            try:
                order: Order = pipe.recv()
                for reply in runner.run(worker.obey(order)):
                    pipe.send(reply)
            except InputError as error:
                pipe.send(error)
            except (EOFError, BrokenPipeError, ConnectionResetError, ParentGoneError):
                return


class _Worker:
    def __init__(self, pipe: Pipe, counters: MutableSequence[int]) -> None:
        self._pipe = pipe
        self._counters = counters
        self._target: Target | None = None
        self._driver: Driver | None = None
        self._prepared: tuple[Payloads, Share] | None = None

    async def obey(self, order: Order) -> list[Any]:
        if isinstance(order, ProbeOrder):
            asked = probe(order.target, order.workload, timeout_s=order.timeout_s)
            return [await self._unless_parent_gone(asked)]
        if isinstance(order, PhaseOrder):
            self._prepare(order)
            return [None]
        traces, health = await self._unless_parent_gone(self._run(order))
        batches = [traces[first : first + _BATCH] for first in range(0, len(traces), _BATCH)]
        return [*batches, health]

    def _prepare(self, order: PhaseOrder) -> None:
        if self._driver is None or self._target != order.target:
            if self._driver is not None:
                self._driver.close()
            self._driver = Driver(order.target, order.timeout_s, self._counters)
            self._target = order.target
        payloads = self._driver.prepare(order.workload, order.phase, order.share)
        self._prepared = payloads, order.share

    async def _run(self, order: StartOrder) -> tuple[list[RequestTrace], ClientHealth]:
        assert self._driver is not None, "a phase was prepared"
        assert self._prepared is not None, "a phase was prepared"
        payloads, share = self._prepared
        self._prepared = None
        with frozen_garbage():
            watch = HealthProbe()
            try:
                traces = await self._driver.run(payloads, share, order.start_ns)
            finally:
                health = watch.stop()
        return traces, health

    async def _unless_parent_gone(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await work; leave it where the parent closes the pipe, or where a callback breaks."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        gone = loop.create_future()
        broken: list[BaseException] = []

        def stop(_: Any, context: dict[str, Any]) -> None:
            broken.append(context.get("exception") or RuntimeError(context["message"]))
            task.cancel()

        loop.set_exception_handler(stop)
        loop.add_reader(self._pipe.fileno(), gone.cancel)
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if broken:
                raise broken[0]
            if not task.done():
                raise ParentGoneError
            return task.result()
        finally:
            loop.remove_reader(self._pipe.fileno())
            os.set_blocking(self._pipe.fileno(), True)  # what libuv changes for watching it
            loop.set_exception_handler(None)
            task.cancel()
            await asyncio.wait({task})


def _loop_factory() -> Any:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
