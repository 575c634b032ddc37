"""The engine's thread: requests and aborts in, one batch of events out for each step."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.event import Event
from upcurve.engine.schedule.request import Request

logger = logging.getLogger(__name__)

FAILED_STEPS = 3
"""So many failed steps in a row, and the engine is given up: a GPU error stays for good."""


@dataclass(frozen=True, slots=True)
class Abort:
    """The command to end one request."""

    request_id: str


class EngineLoop:
    """Runs an engine on a thread of its own; idle, it waits without using the CPU.

    `deliver` is called on that thread, once for each step, with all events of the step, of which
    there may be none, and once before it where another engine has told something; `stepped` before
    it, with the seconds that the step took. `failed` is called there once, if the engine is given
    up; every request has its terminal event by then.
    """

    def __init__(
        self,
        engine: Engine,
        deliver: Callable[[Sequence[Event]], None],
        failed: Callable[[BaseException], None],
        stepped: Callable[[float], None],
    ) -> None:
        self.engine = engine
        self._deliver = deliver
        self._failed = failed
        self._stepped = stepped
        self._inbox: deque[Request | Abort] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        if engine.turns is not None:
            engine.turns.on_call = self._call
        if engine.role is not None:
            engine.role.on_news = self._call
        self._thread = threading.Thread(target=self._run, name="upcurve-engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Abort what is left, deliver the last events, and join the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def submit(self, request: Request) -> None:
        """Queue a request; every event of it, errors too, comes through `deliver`."""
        if not self._send(request):
            error = "the engine has stopped"
            self._deliver([Event(request.id, None, finish="failed", error=error)])

    def abort(self, request_id: str) -> None:
        """End a request; nothing happens where it has ended already."""
        self._send(Abort(request_id))

    def counts(self) -> tuple[int, int]:
        """Return how many requests run and how many wait."""
        pending = sum(isinstance(each, Request) for each in list(self._inbox))
        return self.engine.running, self.engine.waiting + pending

    def _send(self, command: Request | Abort) -> bool:
        with self._wake:
            if self._stopping:
                return False
            self._inbox.append(command)
            self._wake.notify()
            return True

    def _call(self) -> None:
        with self._wake:
            self._wake.notify()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception as error:
            logger.exception("the engine is given up")
            self._give_up(error)

    def _turn(self) -> bool:
        """Take commands, compute one step, deliver; return False at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._inbox or self._stopping or self.engine.has_work)
            commands = len(self._inbox)
            stopping = self._stopping
        events: list[Event] = []
        steps = False
        try:
            for _ in range(commands):
                # It leaves the inbox when it is obeyed, so that an error loses none.
                events += self._obey(self._inbox[0])
                self._inbox.popleft()
            if stopping:
                events += self.engine.abort_all()
            elif self.engine.has_work:
                steps = True
                told = self.engine.attend()
                if told:
                    # A first token from another engine need not wait for the next step.
                    self._deliver(events + told)
                    events = []
                events += self._step()
        finally:
            if events or steps:
                self._deliver(events)
        if self.engine.failed_steps_in_a_row >= FAILED_STEPS:
            raise RuntimeError(f"{FAILED_STEPS} steps in a row failed")
        return not stopping

    def _step(self) -> list[Event]:
        started, steps, waited = time.perf_counter(), self.engine.steps, self.engine.in_flight
        events = self.engine.step()
        if waited or self.engine.steps > steps:
            self._stepped(time.perf_counter() - started)
        return events

    def _obey(self, command: Request | Abort) -> list[Event]:
        if isinstance(command, Abort):
            return self.engine.abort(command.request_id)
        try:
            self.engine.add(command)
        except EngineInputError as error:
            return [Event(command.id, None, finish="failed", error=str(error))]
        return []

    def _give_up(self, error: Exception) -> None:
        with self._wake:
            self._stopping = True
            # A request whose admission broke can be in both: each is told once.
            ids = dict.fromkeys(self.engine.unfinished)
            ids.update((each.id, None) for each in self._inbox if isinstance(each, Request))
            self._inbox.clear()
        text = f"the engine stopped: {error}"
        self._deliver([Event(each, None, finish="failed", error=text) for each in ids])
        try:
            self.engine.abort_all()
        except Exception:
            logger.exception("memory of the engine that was given up is lost")
        self._failed(error)
