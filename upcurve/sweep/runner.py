"""The sweep: launches engines, measures their points, keeps every one at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from upcurve.records.store import Store
from upcurve.sweep.accuracy import Axis
from upcurve.sweep.engine_process import executable
from upcurve.sweep.facts import Machine, engine_environment, run_records
from upcurve.sweep.gate import check_gates, missing_launch, open_places, stored_outcomes
from upcurve.sweep.interruption import sigterm_interrupts
from upcurve.sweep.launch_run import HOST, LaunchRun
from upcurve.sweep.plan import Launch, completed, plan, stored_points
from upcurve.sweep.recipe import Recipe
from upcurve.sweep.result import Failure, Progress, SweepResult


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
