"""Measurements of revisions: from the store where it holds them, else by a launch of the engine."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from upcurve.errors import InputError
from upcurve.frontier.interpolation import Curve
from upcurve.frontier.pareto import frontier
from upcurve.frontier.point import Point
from upcurve.records.run import RunRecord
from upcurve.records.store import Store
from upcurve.sweep.bisection import RevisionError
from upcurve.sweep.engine_process import EngineError, EngineProcess
from upcurve.sweep.facts import Machine, run_records
from upcurve.sweep.launch_run import LaunchRun
from upcurve.sweep.plan import Launch
from upcurve.sweep.recipe import Recipe
from upcurve.sweep.result import Progress, SweepResult
from upcurve.sweep.revision import GitError, Revision, Worktrees

Metric = Literal["tput_per_gpu", "interactivity", "ttft", "tpot"]

COLUMNS: dict[Metric, str] = {
    "tput_per_gpu": "tput_per_gpu",
    "interactivity": "interactivity",
    "ttft": "ttft_ms",
    "tpot": "tpot_ms",
}
"""Metric -> column of the store; higher is better in the first two, lower in the others."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which figure of a run is compared."""

    metric: Metric
    at: float | None
    """Interactivity at which throughput is read from the run's own frontier; None: one point."""

    def read(self, rows: Sequence[Mapping[str, Any]]) -> float:
        """Return the figure of one run from its points.

        Raises:
            RevisionError: the run has no such figure.
        """
        if self.at is None:
            value = rows[0][COLUMNS[self.metric]]
        else:
            points = [
                Point(row["interactivity"], row["tput_per_gpu"], row["tp"], row["gpus"], number)
                for number, row in enumerate(rows)
            ]
            knots = frontier(points)
            curve = Curve.through(
                [each.interactivity for each in knots], [each.tput_per_gpu for each in knots]
            )
            reading = curve.at(self.at)
            if reading.value is None:
                low, high = curve.x[0], curve.x[-1]
                problem = f"its frontier reaches from {low:.4g} to {high:.4g} tok/s/user"
                raise RevisionError(f"{problem}, not {self.at:g}")
            value = reading.value
        if value is None or not 0 < value < math.inf:
            raise RevisionError(f"its {self.metric} is {value}")
        return float(value)


def recipe_of(recipe: Recipe, revision: Revision, folder: str) -> Recipe:
    """Return the recipe of one revision: its series, its commit, its folder; it is not gated."""
    engine = recipe.engine.model_copy(update={"commit": revision.sha, "repository": folder})
    series = f"{recipe.series}@{revision.short}"
    return recipe.model_copy(update={"series": series, "engine": engine, "accuracy": None})


class RevisionRuns:
    """The measurements of a row of revisions; calling it with a position gives one more.

    Run n of a revision is repeat n of its series. What the store holds is given first, in order.
    """

    def __init__(
        self,
        recipe: Recipe,
        revisions: Sequence[Revision],
        question: Question,
        *,
        setup: str,
        store: Store,
        worktrees: Worktrees,
        progress: Progress,
    ) -> None:
        """Read what the store holds of the revisions.

        Args:
            recipe: how the engine is launched, and which concurrencies each run measures.
            revisions: from good to bad.
            question: which figure is compared.
            setup: shell command that makes a checkout ready; the empty string for none.
            store: where runs are kept.
            worktrees: where revisions are checked out.
            progress: who is told of launches.
        """
        self._revisions, self._question, self._setup = revisions, question, setup
        self._store, self._worktrees, self._progress = store, worktrees, progress
        self._recipes = [recipe_of(recipe, each, str(worktrees.path(each))) for each in revisions]
        machine = Machine.here()
        if setup:
            machine = replace(machine, software=machine.software | {"setup": setup})
        self._records = run_records(self._recipes, machine)
        self._held = [
            _held(store, *both) for both in zip(self._recipes, self._records, strict=True)
        ]
        self._taken = [0] * len(revisions)
        self._ready: set[int] = set()
        self._refused: dict[int, str] = {}
        self.reused = 0
        """Measurements that the store held already."""

    def __call__(self, position: int) -> float:
        """Return one more measurement of a revision.

        Raises:
            RevisionError: it does not build, does not start or gives no figures.
        """
        repeat = self._taken[position]
        rows = self._held[position].get(repeat)
        if rows is None:
            rows = self._launch(position, repeat)
        else:
            self.reused += 1
        self._taken[position] += 1
        return self._question.read(rows)

    def release(self, position: int) -> None:
        """Remove the checkout of a revision that has its verdict."""
        self._ready.discard(position)
        self._worktrees.remove(self._revisions[position])

    def _launch(self, position: int, repeat: int) -> list[dict[str, Any]]:
        if position not in self._ready:
            self._prepare(position)
        recipe, record = self._recipes[position], self._records[position]
        launch = Launch(recipe, record, repeat, tuple(recipe.concurrency))
        result = SweepResult()
        try:
            LaunchRun(launch, self._store, self._progress, result).measure()
        except InputError as error:
            if error.field != "engine.command":
                raise
            raise RevisionError(str(error)) from error
        if result.failures:
            raise RevisionError(result.failures[0].problem)
        return [
            {name: getattr(each.point, name) for name in ("tp", "gpus", *COLUMNS.values())}
            for each in result.points
        ]

    def _prepare(self, position: int) -> None:
        """Check a revision out and run the setup there."""
        revision = self._revisions[position]
        try:
            folder = self._worktrees.add(revision)
        except GitError as error:
            raise RevisionError(f"git cannot check it out: {error}") from error
        if self._setup:
            log = self._store.log_path(f"setup-{revision.short}")
            shell = ["sh", "-c", f'cd "$UPCURVE_REPOSITORY" || exit\n{self._setup}']
            environment = dict(os.environ) | {"UPCURVE_REPOSITORY": str(folder)}
            try:
                with EngineProcess(shell, environment, log) as process:
                    process.wait()
            except EngineError as error:
                raise RevisionError(f"its setup failed: {error}") from error
        self._ready.add(position)


def _held(store: Store, recipe: Recipe, record: RunRecord) -> dict[int, list[dict[str, Any]]]:
    """Return repeat -> points of the runs that measured all that the recipe asks for."""
    if not store.fingerprints(recipe.series):
        return {}
    traffic = recipe.workload
    same = {
        "fingerprint": record.fingerprint,
        **recipe.layout.columns,
        "isl": traffic.isl,
        "osl": traffic.osl,
    }
    by_repeat: defaultdict[int, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in store.rows([recipe.series]):
        if same.items() <= row.items() and row["concurrency"] in recipe.concurrency:
            by_repeat[row["repeat"]][row["concurrency"]] = row
    return {
        repeat: [points[each] for each in recipe.concurrency]
        for repeat, points in by_repeat.items()
        if len(points) == len(recipe.concurrency)
    }
