"""An ablation: configurations measured in interleaved rounds until shares are known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from upcurve.errors import InputError
from upcurve.frontier.attribution import Attribution, attribute
from upcurve.frontier.interpolation import DEFAULT_RULE
from upcurve.frontier.point import Point
from upcurve.frontier.rounds import read_rounds
from upcurve.frontier.shapley import Configuration
from upcurve.records.run import RunRecord
from upcurve.records.store import Store
from upcurve.sweep.engine_process import executable
from upcurve.sweep.facts import Machine, engine_environment, run_records
from upcurve.sweep.interruption import sigterm_interrupts
from upcurve.sweep.plan import Launch, launch_of
from upcurve.sweep.recipe import Recipe
from upcurve.sweep.runner import HOST, Failure, LaunchRun, Progress, SweepResult
from upcurve.sweep.schedule import Schedule
from upcurve.sweep.switch import Switch, series_label, switched

Points = dict[Configuration, list[Point]]
"""What each configuration gave; a point's repeat is its round."""


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

    def launches(self, index: int, store: Store | None) -> list[tuple[Configuration, Launch]]:
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
            recipe = self._recipes[on].model_copy(update={"repeats": repeats})
            found.append((on, launch_of(recipe, told, known, index)))
        return found

    def stored(self, on: Configuration, store: Store) -> list[Point]:
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
                recipe.tp,
                recipe.gpus,
                concurrency,
                repeat,
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


@dataclass(slots=True)
class Outcome:
    """What an ablation measured and what it says, at every target."""

    points: Points = field(default_factory=lambda: defaultdict(list))
    rounds: int = 0
    """Rounds that were measured, by this or an earlier call."""
    failures: list[Failure] = field(default_factory=list)
    attributions: list[Attribution] = field(default_factory=list)


Split = Callable[[Points, int], list[Attribution]]
"""Points and how many rounds there are -> the move at every target."""


def splitter(
    schedule: Schedule,
    targets: Sequence[float],
    *,
    rule: str = DEFAULT_RULE,
    prices: Callable[[Configuration], float | None] = lambda _: None,
) -> Split:
    """Return how points become shares.

    Args:
        schedule: of the rounds.
        targets: interactivities in tok/s/user.
        rule: how to interpolate on a frontier.
        prices: USD per GPU-hour of a configuration; where one has none, there is no cost.
    """

    def split(points: Points, rounds: int) -> list[Attribution]:
        priced: Mapping[Configuration, float] = {
            on: price for on in points if (price := prices(on)) is not None
        }
        return [
            attribute(
                read_rounds(points, target, rule=rule, rounds=range(rounds)),
                schedule.switches,
                interactivity=target,
                design=schedule.design,
                orders=schedule.orders if schedule.design == "shapley" else None,
                prices=priced if len(priced) == len(points) else None,
            )
            for target in targets
        ]

    return split


def run_ablation(
    ablation: Ablation,
    store: Store,
    split: Split,
    *,
    rounds: int,
    max_rounds: int,
    precision: float,
    resume: bool,
    progress: Progress,
) -> Outcome:
    """Measure round after round until every share is known well enough.

    Args:
        ablation: what to measure.
        store: where every point is kept as soon as it is measured.
        split: how points become shares.
        rounds: rounds that are measured in any case.
        max_rounds: rounds after which it ends in any case.
        precision: wanted half width of every share's interval, in log ratio.
        resume: whether points that the store holds are not measured again, and count.
        progress: who is told.

    Raises:
        InputError: the store refuses to write, or a later configuration cannot be used.
        KeyboardInterrupt: as `run_sweep` does.
    """
    outcome = Outcome()
    known = store if resume else None
    planned = [ablation.launches(index, known) for index in range(rounds)]
    progress.planned([launch for each in planned for _, launch in each])
    with sigterm_interrupts():
        while outcome.rounds < max_rounds:
            index = outcome.rounds
            if index >= rounds:
                planned.append(ablation.launches(index, known))
                progress.planned([launch for _, launch in planned[index]])
            for on, launch in planned[index]:
                _measure(on, launch, store, progress, outcome)
                if launch.skipped:
                    outcome.points[on] += [
                        point
                        for point in ablation.stored(on, store)
                        if point.repeat == index and point.concurrency in launch.skipped
                    ]
            outcome.rounds += 1
            if outcome.rounds < rounds:
                continue
            outcome.attributions = split(outcome.points, outcome.rounds)
            # Where no round so far gives shares, further ones would hardly.
            if all(not each.shares or each.precise(precision) for each in outcome.attributions):
                break
    return outcome


def _what_runs(recipe: Recipe) -> dict[str, Any]:
    """Return all that an engine is launched with; names and what it inherits already left out."""
    values = recipe.model_dump(exclude={"name", "series"})
    values["engine"]["env"] = engine_environment(recipe)
    return values


def _measure(
    on: Configuration,
    launch: Launch,
    store: Store,
    progress: Progress,
    outcome: Outcome,
) -> None:
    if not launch.concurrencies:
        return
    result = SweepResult()
    LaunchRun(launch, store, progress, result).measure()
    outcome.failures += result.failures
    for each in result.points:
        point = each.point
        outcome.points[on].append(
            Point(
                point.interactivity,
                point.tput_per_gpu,
                point.tp,
                point.gpus,
                point.concurrency,
                point.repeat,
            )
        )


def planned_round(ablation: Ablation, index: int, store: Store | None) -> list[dict[str, Any]]:
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
