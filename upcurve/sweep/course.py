"""One recipe on its way to its goal: what it knows, what it measures next, why it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from upcurve.frontier.adaptive import Estimate, choose, estimate, is_precise, why
from upcurve.frontier.goal import Goal
from upcurve.frontier.point import Point
from upcurve.records.reader import StoreReader
from upcurve.records.run import RunRecord
from upcurve.sweep.accuracy import Axis
from upcurve.sweep.launch_run import HOST
from upcurve.sweep.plan import Launch, stored_points
from upcurve.sweep.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one recipe's sweep knows at one target, and why it ended."""

    recipe: Recipe
    estimate: Estimate
    precise: bool
    why: str
    points: int
    """Points of the recipe that it rests on, those of the store included."""

    def describe(self) -> str:
        """Return the outcome in one line."""
        found, read = self.estimate, "tok/s/GPU"
        if found.target.axis == "tput_per_gpu":
            read = "tok/s/user"
        value = "" if found.value is None else f"{found.value:.5g} {read}; "
        return f"{self.recipe.name} at {found.target.describe()}: {value}{self.why}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of this outcome."""
        found = self.estimate
        other = "tput_per_gpu" if found.target.axis == "interactivity" else "interactivity"
        return {
            "series": self.recipe.series,
            "recipe": self.recipe.name,
            "target": {
                found.target.axis: found.target.value,
                "usd_per_million_tokens": found.target.usd_per_million_tokens,
            },
            other: found.value,
            "status": found.status,
            "precise": self.precise,
            "interpolation_error": found.interpolation,
            "noise": found.noise,
            "points": self.points,
            "why": self.why,
        }


@dataclass(slots=True)
class Course:
    """One recipe on its way: what it knows, and what it measures next."""

    recipe: Recipe
    record: RunRecord
    goal: Goal
    points: list[Point]
    failed: list[int] = field(default_factory=list)

    @classmethod
    def begin(
        cls, recipe: Recipe, record: RunRecord, goal: Goal, store: StoreReader | None
    ) -> Course:
        """Return the start, with what the store holds of it, where one is given."""
        return cls(
            recipe, record, goal, [] if store is None else stored_points(recipe, record, store)
        )

    def next(self, index: int) -> int | None:
        """Return the concurrency that a round measures next, None at its end."""
        return choose(self.points, self.goal, index, self.failed)

    def targets(self) -> list[tuple[Axis, float]]:
        """Return axis and value of each target, whose neighbours the accuracy gate looks at."""
        return [(each.axis, each.value) for each in self.goal.targets]

    def outcomes(self) -> list[Outcome]:
        """Return what is known at each target."""
        spent = len(self.points) + len(self.failed)
        found = [estimate(self.points, each, self.goal, self.failed) for each in self.goal.targets]
        return [
            Outcome(
                self.recipe,
                each,
                is_precise(each, self.goal),
                why(each, self.goal, spent),
                len(self.points),
            )
            for each in found
        ]

    def planned(self) -> dict[str, Any]:
        """Return what is known before the next point, as a JSON object."""
        begin = self._begin()
        return {
            "series": self.recipe.series,
            "recipe": self.recipe.name,
            "targets": [{each.axis: each.value} for each in self.goal.targets],
            "precision": self.goal.precision,
            "highest_concurrency": self.goal.highest,
            "max_points": self.goal.max_points,
            "rounds": self.goal.rounds,
            "skipped": [[each.concurrency, each.repeat] for each in self.points],
            "next": None if begin is None else {"round": begin[0], "concurrency": begin[1]},
            "fingerprint": self.record.fingerprint,
            "command": self.recipe.command(host=HOST, port="PORT"),
            "env": self.record.recipe["engine"]["env"],
        }

    def describe(self) -> str:
        """Return the same in one line."""
        goal, begin = self.goal, self._begin()
        targets = ", ".join(each.describe() for each in goal.targets)
        start = "nothing left"
        if begin is not None:
            start = f"round {begin[0] + 1} goes on at concurrency {begin[1]}"
        return (
            f"{self.recipe.name}: targets {targets} to {100 * goal.precision:g} %, "
            f"concurrency 1 to {goal.highest}, at most {goal.max_points} points "
            f"in {goal.rounds} rounds, {len(self.points)} measured already; {start}"
        )

    def launches(self) -> list[Launch]:
        """Return one launch a round, all further points in the first: none is chosen yet."""
        open_points = 0 if self._begin() is None else self.goal.max_points - len(self.points)
        return [
            Launch(
                self.recipe,
                self.record,
                index,
                (),
                tuple(each.concurrency for each in self.points if each.repeat == index),
                0 if index else open_points,
            )
            for index in range(self.goal.rounds)
        ]

    def _begin(self) -> tuple[int, int] | None:
        """Return the first round that has something to measure, and at which concurrency."""
        rounds = ((index, self.next(index)) for index in range(self.goal.rounds))
        return next(((index, at) for index, at in rounds if at is not None), None)
