"""An ablation: the recipe, the record and the launches of every configuration of its switches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from upcurve.errors import InputError
from upcurve.frontier.point import Point
from upcurve.frontier.shapley import Configuration
from upcurve.records.facts import facts
from upcurve.records.reader import StoreReader
from upcurve.records.run import RunRecord
from upcurve.sweep.engine_process import executable
from upcurve.sweep.facts import Machine, engine_environment, run_records
from upcurve.sweep.launch_run import HOST
from upcurve.sweep.plan import Launch, launch_of
from upcurve.sweep.recipe import Recipe
from upcurve.sweep.schedule import Schedule
from upcurve.sweep.switch import Switch, series_label, switched


class Ablation:
    """A recipe with switches: the recipe and the record of every configuration."""

    def __init__(
        self,
        path: Path,
        overrides: Sequence[str],
        switches: Sequence[Switch],
        schedule: Schedule,
        *,
        rounds: int,
        max_rounds: int,
    ) -> None:
        """Read the recipe with every configuration of every round.

        Args:
            path: the recipe.
            overrides: `key=value` for every configuration.
            switches: what is on or off.
            schedule: of the labels of the switches.
            rounds: how many rounds there are at least; said to those who watch.
            max_rounds: how many there are at most.

        Raises:
            InputError: the recipe cannot be used, a program or a model cannot be found, or a
                switch changes nothing.
        """
        self.schedule = schedule
        self._switches = tuple(switches)
        self._rounds = rounds
        self._machine = Machine.here()
        self._path, self._overrides = path, tuple(overrides)
        self._recipes: dict[Configuration, Recipe] = {}
        self._records: dict[Configuration, RunRecord] = {}
        self._add([on for index in range(max_rounds) for on in schedule.configurations(index)])
        off = _what_runs(self.recipe(Configuration()))
        for switch in schedule.switches:
            if _what_runs(self.recipe(Configuration({switch}))) == off:
                mend = "take it out of the recipe or the environment, so that off differs from on"
                raise InputError(f"--switch {switch}", "it changes nothing", mend)

    def known(self) -> list[Configuration]:
        """Return every configuration of every round."""
        return list(self._recipes)

    def recipes(self) -> list[Recipe]:
        """Return the recipe of every configuration."""
        return list(self._recipes.values())

    def recipe(self, on: Configuration) -> Recipe:
        """Return the recipe of a configuration."""
        self._add([on])
        return self._recipes[on]

    def record(self, on: Configuration) -> RunRecord:
        """Return what the launches of a configuration are recorded with."""
        self._add([on])
        return self._records[on]

    def launches(self, index: int, store: StoreReader | None) -> list[tuple[Configuration, Launch]]:
        """Return the launches of a round in their order.

        Args:
            index: the round, from 0.
            store: whose points are left out; None leaves none out.
        """
        wanted = self.schedule.configurations(index)
        self._add(wanted)
        found = []
        for turn, on in enumerate(wanted):
            record = self._records[on]
            known = store.completed(record.fingerprint, record.series) if store else set()
            asked = {
                "switches": list(self.schedule.switches),
                "on": [switch for switch in self.schedule.switches if switch in on],
                "design": self.schedule.design,
                "seed": self.schedule.seed,
                "pairs": self.schedule.pairs,
                "round": index,
                "turn": turn,
            }
            told = replace(record, recipe=record.recipe | {"ablation": asked})
            repeats = max(self._rounds, index + 1)
            # The gate looks at each configuration once.
            gate = None if index else self._recipes[on].accuracy
            recipe = self._recipes[on].model_copy(update={"repeats": repeats, "accuracy": gate})
            found.append((on, launch_of(recipe, told, known, index)))
        return found

    def stored(self, on: Configuration, store: StoreReader) -> list[Point]:
        """Return what the store holds of a configuration; of one point the latest counts."""
        recipe, record = self.recipe(on), self.record(on)
        traffic = recipe.workload
        latest = {
            (repeat, figures["concurrency"]): figures
            for repeat, figures in store.results(record.fingerprint, record.series)
            if (figures["isl"], figures["osl"]) == (traffic.isl, traffic.osl)
            and figures["concurrency"] in recipe.concurrency
        }
        return [
            Point(
                figures["interactivity"],
                figures["tput_per_gpu"],
                concurrency=concurrency,
                repeat=repeat,
                facts=facts(figures["requests"], figures["failed"], figures),
                **recipe.layout.columns,
            )
            for (repeat, concurrency), figures in latest.items()
        ]

    def label(self, on: Configuration) -> str:
        """Return a configuration in words."""
        return series_label(self.schedule.switches, on)

    def _add(self, wanted: Sequence[Configuration]) -> None:
        new = [on for on in dict.fromkeys(wanted) if on not in self._records]
        recipes = [switched(self._path, self._overrides, self._switches, on) for on in new]
        for recipe in recipes:
            executable(recipe.command(host=HOST, port=0), engine_environment(recipe))
        # A model's files are read once for all of them.
        records = run_records(recipes, self._machine) if recipes else []
        self._recipes |= dict(zip(new, recipes, strict=True))
        self._records |= dict(zip(new, records, strict=True))


def _what_runs(recipe: Recipe) -> dict[str, Any]:
    """Return all that an engine is launched with; names and what it inherits already left out."""
    values = recipe.model_dump(exclude={"name", "series"})
    values["engine"]["env"] = engine_environment(recipe)
    return values


def planned_round(
    ablation: Ablation, index: int, store: StoreReader | None
) -> list[dict[str, Any]]:
    """Return what a round would launch, as `--dry-run --json` prints it."""
    return [
        {
            "round": index,
            "configuration": ablation.label(on),
            "series": launch.recipe.series,
            "concurrencies": launch.concurrencies,
            "skipped": launch.skipped,
            "fingerprint": launch.record.fingerprint,
            "command": launch.recipe.command(host=HOST, port="PORT"),
            "env": launch.record.recipe["engine"]["env"],
        }
        for on, launch in ablation.launches(index, store)
    ]
