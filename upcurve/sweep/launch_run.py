"""One launch of an engine: its points are measured and kept, its gate is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from upcurve.load.trace import to_table
from upcurve.records.store import Store
from upcurve.sweep.accuracy import Axis
from upcurve.sweep.engine_process import EngineError, EngineProcess, executable, free_port
from upcurve.sweep.facts import engine_environment
from upcurve.sweep.gate import GateOutcome, evaluate_point, open_places
from upcurve.sweep.plan import Launch
from upcurve.sweep.point import Measurement, PointError, RefusedError
from upcurve.sweep.result import Failure, Measured, Progress, SweepResult

HOST = "127.0.0.1"
"""Where engines listen: they serve nobody but the sweep."""


class LaunchRun:
    """One launch as one run of the store."""

    def __init__(
        self,
        launch: Launch,
        store: Store,
        progress: Progress,
        result: SweepResult,
        choose: Callable[[], int | None] | None = None,
        targets: Sequence[tuple[Axis, float]] = (),
    ) -> None:
        """Take what to measure.

        Args:
            launch: the engine and its points.
            store: where to keep them.
            progress: who is told.
            result: what is added to.
            choose: asked for the next concurrency once the launch's own list is at its end; None
                ends the launch.
            targets: axis and value of targets whose neighbours the accuracy gate looks at.
        """
        self._launch = launch
        self._choose = choose
        self._targets = targets
        self._ids: dict[int, int] = {}
        self._store = store
        self._progress = progress
        self._result = result
        self._id = ""
        self._left = list(launch.concurrencies)
        self._measuring: int | None = None
        self._first_failure: str | None = None

    def measure(self) -> None:
        """Launch the engine, measure its points and end it; the run ends in one status."""
        started = replace(self._launch.record, started_at=datetime.now(UTC))
        self._id = self._store.begin_run(started)
        status: Literal["complete", "interrupted", "failed"] = "interrupted"
        note: str | None = "stopped by the user"
        try:
            note = self._measure()
            status = "failed" if note else "complete"
        except Exception as error:
            status, note = "failed", str(error)
            raise
        finally:
            self._store.end_run(self._id, status, note)

    def _measure(self) -> str | None:
        """Return what failed first, or None."""
        recipe, health = self._launch.recipe, self._launch.recipe.engine.health
        environment = engine_environment(recipe)
        with free_port(HOST) as port:
            command = executable(recipe.command(host=HOST, port=port), environment)
            self._progress.launching(self._launch, self._id)
            try:
                with EngineProcess(command, environment, self._store.log_path(self._id)) as engine:
                    seconds = engine.wait_until_ready(HOST, port, health.path, health.timeout_s)
                    self._progress.ready(self._launch, seconds)
                    with Measurement(recipe, HOST, port, engine) as measurement:
                        self._measure_all(measurement)
            except EngineError as error:
                self._fail(f"the engine failed: {error}", tuple(self._left))
            except PointError as error:
                refused = isinstance(error, RefusedError)
                self._fail(str(error), tuple(self._left), refused=refused)
        return self._first_failure

    def _measure_all(self, measurement: Measurement) -> None:
        measurement.probe()
        while self._left or self._chosen():
            self._measure_point(measurement, self._left[0])
            self._left.pop(0)
        self._gate(measurement)

    def _chosen(self) -> bool:
        """Put the next chosen concurrency in line, where there is one."""
        following = self._choose() if self._choose else None
        if following is not None:
            self._left.append(following)
        return following is not None

    def _measure_point(self, measurement: Measurement, concurrency: int) -> None:
        self._measuring = concurrency
        self._progress.measuring(self._launch, concurrency)
        try:
            point, result = measurement.point(
                concurrency, repeat=self._launch.round, progress=self._request_ended
            )
        except PointError as error:
            self._fail(str(error), (concurrency,))
            return
        self._ids[concurrency] = self._store.add_point(
            self._id, point, to_table(result.traces), result.telemetry
        )
        measured = Measured(self._launch, self._id, point)
        self._result.points.append(measured)
        self._progress.measured(measured)

    def _gate(self, measurement: Measurement) -> None:
        """Evaluate the accuracy at those points of this process that the gate looks at."""
        launch = self._launch
        points = list(dict.fromkeys([*self._result.seen(launch.record), *launch.known]))
        wanted = open_places(launch, points, self._result.gates, self._targets)
        for concurrency in [each for each in self._ids if each in wanted]:
            self._measuring = concurrency
            try:
                kept = evaluate_point(
                    measurement,
                    launch.recipe,
                    concurrency,
                    run_id=self._id,
                    point_id=self._ids[concurrency],
                    store=self._store,
                    progress=partial(self._progress.evaluating, launch, concurrency),
                )
            except (PointError, EngineError) as error:
                self._fail(f"no accuracy: {error}", ())
                if isinstance(error, EngineError):
                    return
                continue
            outcome = GateOutcome(launch, self._id, concurrency, kept)
            self._result.gates.append(outcome)
            self._progress.evaluated(outcome)

    def _request_ended(self, ended: int, of: int) -> None:
        self._progress.request_ended(self._launch, ended, of)

    def _fail(self, problem: str, lost: tuple[int, ...], *, refused: bool = False) -> None:
        self._first_failure = self._first_failure or problem
        failure = Failure(self._launch, self._id, self._measuring, problem, lost, refused)
        self._result.failures.append(failure)
        self._progress.failed(failure)
