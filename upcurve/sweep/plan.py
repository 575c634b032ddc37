"""The order of a sweep: which launch measures which points, and what is measured already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from upcurve.frontier.point import Point
from upcurve.records.facts import facts
from upcurve.records.queries import OperatingPoint
from upcurve.records.reader import StoreReader
from upcurve.records.run import RunRecord
from upcurve.sweep.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a recipe's engine: the points of one round."""

    recipe: Recipe
    record: RunRecord
    """What its run is recorded with, but for the time of its start."""
    round: int
    """Which repeat it measures, from 0."""
    concurrencies: tuple[int, ...]
    """The points that it measures; empty where none is left."""
    skipped: tuple[int, ...] = ()
    """The points that the store holds already."""
    at_most: int = 0
    """How many further points may be chosen while the sweep runs."""
    known: tuple[Point, ...] = ()
    """The points of all rounds that the store holds of the recipe and that count."""


def plan(
    recipes: Sequence[Recipe], records: Sequence[RunRecord], done: Sequence[set[OperatingPoint]]
) -> list[Launch]:
    """Return the launches of a sweep in their order.

    Round r launches every recipe once, in the given order where r is even and in the opposite one
    where it is odd, so that a drift of the machine does not favour one recipe. A recipe with fewer
    repeats takes part in the first rounds.

    Args:
        recipes: what to measure.
        records: what each recipe's launches are recorded with.
        done: for each recipe, the points that need no second run.
    """
    launches = []
    for index in range(max((recipe.repeats for recipe in recipes), default=0)):
        each_once = list(zip(recipes, records, done, strict=True))
        for recipe, record, known in each_once if index % 2 == 0 else reversed(each_once):
            if index < recipe.repeats:
                launches.append(launch_of(recipe, record, known, index))
    return launches


def completed(records: Sequence[RunRecord], store: StoreReader) -> list[set[OperatingPoint]]:
    """Return for each recipe what the store holds under its fingerprint and series."""
    return [store.completed(record.fingerprint, record.series) for record in records]


def launch_of(recipe: Recipe, record: RunRecord, known: set[OperatingPoint], index: int) -> Launch:
    """Return the launch of a recipe in round `index`, without the points that are known."""
    traffic = recipe.workload
    skipped = tuple(
        concurrency
        for concurrency in recipe.concurrency
        if (*recipe.layout.sizes, concurrency, traffic.isl, traffic.osl, index) in known
    )
    left = tuple(each for each in recipe.concurrency if each not in skipped)
    return Launch(recipe, record, index, left, skipped)


def stored_rows(recipe: Recipe, record: RunRecord, store: StoreReader) -> list[dict[str, Any]]:
    """Return what the store holds of a recipe; of a repeat that stands there twice the latest."""
    if not any(each.name == recipe.series for each in store.series()):
        return []
    place = {
        "fingerprint": record.fingerprint,
        **recipe.layout.columns,
        "isl": recipe.workload.isl,
        "osl": recipe.workload.osl,
    }
    found = {
        (row["concurrency"], row["repeat"]): row
        for row in store.rows([recipe.series])
        if all(row[name] == value for name, value in place.items())
    }
    return list(found.values())


def stored_points(recipe: Recipe, record: RunRecord, store: StoreReader) -> list[Point]:
    """Return the points of `stored_rows`."""
    return [
        Point(
            row["interactivity"],
            row["tput_per_gpu"],
            concurrency=row["concurrency"],
            repeat=row["repeat"],
            facts=facts(row["requests"], row["failed"], row["result"], row["accuracy"]),
            **recipe.layout.columns,
        )
        for row in stored_rows(recipe, record, store)
    ]
