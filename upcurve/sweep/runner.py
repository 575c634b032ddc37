"""The sweep: launches engines, measures their points, keeps every one at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal, Protocol

from upcurve.accuracy.evaluation import Asked
from upcurve.frontier.point import Point
from upcurve.load.trace import to_table
from upcurve.records.facts import as_point
from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.store import Store
from upcurve.sweep.accuracy import Axis
from upcurve.sweep.engine_process import EngineError, EngineProcess, executable, free_port
from upcurve.sweep.facts import Machine, engine_environment, run_records
from upcurve.sweep.gate import (
    GateOutcome,
    check_gates,
    evaluate_point,
    missing_launch,
    open_places,
    stored_outcomes,
)
from upcurve.sweep.interruption import sigterm_interrupts
from upcurve.sweep.plan import Launch, completed, plan, stored_points
from upcurve.sweep.point import Measurement, PointError, RefusedError
from upcurve.sweep.recipe import Recipe

HOST = "127.0.0.1"
"""Where engines listen: they serve nobody but the sweep."""


class Progress(Protocol):
    """Who watches a sweep; each call returns at once."""

    def planned(self, launches: Sequence[Launch]) -> None:
        """All launches of the sweep are known."""

    def launching(self, launch: Launch, run_id: str) -> None:
        """An engine is being launched."""

    def ready(self, launch: Launch, seconds: float) -> None:
        """The engine answers, `seconds` after its launch."""

    def measuring(self, launch: Launch, concurrency: int) -> None:
        """A point is being measured."""

    def request_ended(self, launch: Launch, ended: int, of: int) -> None:
        """A request of the point that is being measured has ended; one call for each."""

    def measured(self, measured: Measured) -> None:
        """A point is measured and stored."""

    def failed(self, failure: Failure) -> None:
        """A launch or a point failed; the sweep goes on."""

    def evaluating(self, launch: Launch, concurrency: int, state: Asked) -> None:
        """The accuracy at a point is being evaluated; called a few times a second."""

    def evaluated(self, outcome: GateOutcome) -> None:
        """The accuracy at a point is known and stored."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A point that is measured and stored."""

    launch: Launch
    run_id: str
    point: PointRecord

    @property
    def seen(self) -> Point:
        """The point as a comparison sees it."""
        return as_point(self.point)


@dataclass(frozen=True, slots=True)
class Failure:
    """A launch, or one point of it, that gave nothing."""

    launch: Launch
    run_id: str
    concurrency: int | None
    """The point; None where the engine did not get so far as to be measured."""
    problem: str
    """What happened, with the last lines of the engine's log where it died."""
    lost: tuple[int, ...]
    """The concurrencies that this launch did not measure because of it."""
    refused: bool = False
    """Whether every launch of this recipe would fail alike."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep measured, in the order of measuring, and what failed."""

    points: list[Measured] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: int = 0
    """Points that the store held already."""
    gates: list[GateOutcome] = field(default_factory=list)
    """What the accuracy gates said; on resuming also what the store held."""
    ungated: list[tuple[Recipe, int]] = field(default_factory=list)
    """Recipes, and the concurrencies at which their gate has no outcome in the end."""

    def seen(self, record: RunRecord) -> list[Point]:
        """Return the measured points of a recipe, by what its launches are recorded with."""
        return [each.seen for each in self.points if each.launch.record is record]


def run_sweep(
    recipes: Sequence[Recipe], store: Store, *, resume: bool, progress: Progress
) -> SweepResult:
    """Measure recipes, interleaved by repeat; each launch is one run of the store.

    A point is stored with its trace as soon as it is measured. Where an engine does not start or
    dies, its run is marked failed, what is left of that launch is not measured, and the sweep goes
    on with the next one.

    Args:
        recipes: what to measure.
        store: where to keep it.
        resume: whether points that the store holds, of the same fingerprint, series and repeat,
            are skipped.
        progress: who is told.

    Raises:
        InputError: a program or a model cannot be found, or the store refuses to write.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; the engine is ended, the run is marked interrupted
            and what was measured stays.
    """
    for recipe in recipes:
        executable(recipe.command(host=HOST, port=0), engine_environment(recipe))
    check_gates(recipes, store)
    records = run_records(recipes, Machine.here())
    done = completed(records, store) if resume else [set() for _ in recipes]
    launches = plan(recipes, records, done)
    result = SweepResult(skipped=sum(len(launch.skipped) for launch in launches))
    if resume:
        launches = [
            replace(each, known=tuple(stored_points(each.recipe, each.record, store)))
            for each in launches
        ]
        result.gates.extend(stored_outcomes(launches, store))
    progress.planned(launches)
    with sigterm_interrupts():
        for launch in launches:
            if launch.concurrencies and not _refused_before(launch, progress, result):
                LaunchRun(launch, store, progress, result).measure()
        for recipe, record in zip(recipes, records, strict=True):
            known = stored_points(recipe, record, store) if resume else result.seen(record)
            last = Launch(recipe, record, recipe.repeats - 1, (), known=tuple(known))
            complete_gate(last, store, progress, result, resume=resume)
    return result


def _refused_before(launch: Launch, progress: Progress, result: SweepResult) -> bool:
    """Whether an earlier launch of the same recipe was refused; then this one fails unlaunched."""
    for each in result.failures:
        if each.refused and each.launch.recipe is launch.recipe:
            problem = f"not launched, because round {each.launch.round + 1} was refused"
            failure = Failure(launch, each.run_id, None, problem, launch.concurrencies)
            result.failures.append(failure)
            progress.failed(failure)
            return True
    return False


def complete_gate(
    launch: Launch,
    store: Store,
    progress: Progress,
    result: SweepResult,
    targets: Sequence[tuple[Axis, float]] = (),
    *,
    resume: bool,
) -> None:
    """Make up for a gate that a kill cut off, and note where one is missing in the end.

    Args:
        launch: of the recipe, with all that is known of it.
        store: where to keep it.
        progress: who is told.
        result: what is added to.
        targets: axis and value of targets whose neighbours the gate looks at.
        resume: whether there was an earlier sweep. What failed in this one is not tried again.
    """
    if resume and not result.failures:
        further = missing_launch(launch, result.gates, targets)
        if further is not None:
            progress.planned([further])
            LaunchRun(further, store, progress, result, targets=targets).measure()
    left = sorted(open_places(launch, launch.known, result.gates, targets))
    result.ungated.extend((launch.recipe, concurrency) for concurrency in left)


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
        port = free_port(HOST)
        command = executable(recipe.command(host=HOST, port=port), environment)
        self._progress.launching(self._launch, self._id)
        try:
            with EngineProcess(command, environment, self._store.log_path(self._id)) as engine:
                seconds = engine.wait_until_ready(HOST, port, health.path, health.timeout_s)
                self._progress.ready(self._launch, seconds)
                with Measurement(recipe, HOST, port, engine) as measurement:
                    measurement.probe()
                    while self._left or self._chosen():
                        self._measure_point(measurement, self._left[0])
                        self._left.pop(0)
                    self._gate(measurement)
        except EngineError as error:
            self._fail(f"the engine failed: {error}", tuple(self._left))
        except PointError as error:
            self._fail(str(error), tuple(self._left), refused=isinstance(error, RefusedError))
        return self._first_failure

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
