"""Turns what an engine's loop tells into reports: one for each step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.event import Event
from upcurve.engine.execute.loop import EngineLoop
from upcurve.engine.serve.messages import Broken, Report, Status, Step


class Reporter:
    """An engine's loop, and `send`, which is called on its thread with every report."""

    def __init__(self, engine: Engine, send: Callable[[Report], None]) -> None:
        self.loop = EngineLoop(engine, self._deliver, self._failed, self._stepped)
        self._engine = engine
        self._send = send
        self._seconds: float | None = None

    def _stepped(self, seconds: float) -> None:
        self._seconds = seconds

    def _deliver(self, events: Sequence[Event]) -> None:
        seconds, self._seconds = self._seconds, None
        self._send(Step.of(time.perf_counter(), seconds, Status.of(self._engine), events))

    def _failed(self, error: BaseException) -> None:
        self._send(Broken(str(error)))
