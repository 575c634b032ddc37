"""The gate of a launch: which of its points are evaluated, on the process that they ran on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from upcurve.accuracy.answers import AnswersFile
from upcurve.accuracy.evaluation import Asked
from upcurve.accuracy.outcome import FOLDER, outcome, reference_of
from upcurve.errors import InputError
from upcurve.frontier.point import Point
from upcurve.records.store import Store
from upcurve.sweep.accuracy import Accuracy, Axis
from upcurve.sweep.plan import Launch, stored_rows
from upcurve.sweep.point import Measurement
from upcurve.sweep.recipe import Recipe


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """What the gate said of a point."""

    launch: Launch
    run_id: str
    concurrency: int
    accuracy: dict[str, Any]
    """As the point's record keeps it."""
    before: bool = False
    """Whether an earlier sweep evaluated it."""

    @property
    def passed(self) -> bool:
        """Whether the point passed."""
        return self.accuracy["passed"] is True


def check_gates(recipes: Sequence[Recipe], store: Store) -> None:
    """Check that every accuracy section can be used, before anything is launched.

    Raises:
        InputError: a task cannot be read, a place is not measured, or a baseline is neither in the
            store nor measured with its own gate by one of the recipes.
    """
    series = {each.name for each in store.series()}
    series |= {each.series for each in recipes if each.accuracy is not None}
    for recipe in recipes:
        if recipe.accuracy is None:
            continue
        recipe.accuracy.load()
        where = recipe.accuracy.where
        if isinstance(where, list) and not set(where) <= set(recipe.concurrency):
            problem = f"{where} has a concurrency that the recipe does not measure"
            mend = f"choose among {', '.join(map(str, recipe.concurrency))}"
            raise InputError(f"recipe {recipe.name}: accuracy.where", problem, mend)
        baseline = recipe.accuracy.baseline
        if baseline == recipe.series:
            problem = f"{baseline!r} is the recipe's own series"
            mend = "name another series, or give this one another name"
            raise InputError(f"recipe {recipe.name}: accuracy.baseline", problem, mend)
        if baseline is not None and baseline not in series:
            problem = f"the store has no series {baseline!r}"
            mend = "measure it first, with an accuracy section of its own"
            raise InputError(f"recipe {recipe.name}: accuracy.baseline", problem, mend)


def stored_outcomes(launches: Sequence[Launch], store: Store) -> list[GateOutcome]:
    """Return what the store holds of the gates of launches: one outcome for each place."""
    found = {}
    for launch in launches:
        recipe, accuracy = launch.recipe, launch.recipe.accuracy
        if accuracy is None or launch.round:
            continue
        for row in stored_rows(recipe, launch.record, store):
            kept = row["accuracy"]
            if kept and accuracy.matches(kept, recipe.workload.isl):
                place = (launch.record.fingerprint, recipe.series, recipe.tp, row["concurrency"])
                found[place] = GateOutcome(launch, row["run"], row["concurrency"], kept, True)
    return list(found.values())


def open_places(
    launch: Launch,
    points: Sequence[Point],
    outcomes: Sequence[GateOutcome],
    targets: Sequence[tuple[Axis, float]] = (),
) -> set[int]:
    """Return the concurrencies that still have to be evaluated.

    Args:
        launch: of the recipe.
        points: all that is known of it.
        outcomes: of all recipes.
        targets: axis and value of targets beside the section's own.
    """
    accuracy = launch.recipe.accuracy
    if accuracy is None:
        return set()
    done = {each.concurrency for each in outcomes if _same(each.launch, launch)}
    return accuracy.places(points, targets) - done


def missing_launch(
    launch: Launch,
    outcomes: Sequence[GateOutcome],
    targets: Sequence[tuple[Axis, float]] = (),
) -> Launch | None:
    """Return one more launch where the gate of an earlier sweep was cut off; None where it was not.

    What an ended process answered says nothing about another one: such points are measured again.

    Args:
        launch: of the recipe, with all that is known of it.
        outcomes: of all recipes.
        targets: axis and value of targets beside the section's own.
    """
    wanted = open_places(launch, launch.known, outcomes, targets)
    again = sorted(wanted & {each.concurrency for each in launch.known})
    return replace(launch, concurrencies=tuple(again), skipped=(), at_most=0) if again else None


def evaluate_point(
    measurement: Measurement,
    recipe: Recipe,
    concurrency: int,
    *,
    run_id: str,
    point_id: int,
    store: Store,
    progress: Callable[[Asked], None],
) -> dict[str, Any]:
    """Evaluate one measured point, keep its answers, and record what came of it.

    Raises:
        EngineError: the engine died.
        PointError: it refuses the first question.
        InputError: the disk refuses.
    """
    accuracy: Accuracy | None = recipe.accuracy
    assert accuracy is not None, "asked only where there is one"
    task, gate = accuracy.load(), accuracy.gate
    facts = {**task.facts(), "run": run_id, "point": point_id, "concurrency": concurrency}
    stem = f"{run_id}-tp{recipe.tp}-c{concurrency}-{task.name}"
    with AnswersFile.begin(store.root / FOLDER, stem, facts) as file:
        found, setting = measurement.evaluate(concurrency, file, progress)
        reference = None
        if gate.baseline is not None and any(s.name == gate.baseline for s in store.series()):
            reference = reference_of(
                store, gate.baseline, task, setting, accuracy.endpoint, accuracy.metric
            )
        kept = outcome(
            found,
            task,
            setting,
            endpoint=accuracy.endpoint,
            metric=accuracy.metric,
            gate=gate,
            reference=reference,
            answers=str(file.path.relative_to(store.root)),
            same_process=True,
        )
    store.set_accuracy(point_id, kept)
    return kept


def _same(one: Launch, other: Launch) -> bool:
    """Whether two launches are of one curve."""
    return (one.record.fingerprint, one.recipe.series, one.recipe.layout) == (
        other.record.fingerprint,
        other.recipe.series,
        other.recipe.layout,
    )
