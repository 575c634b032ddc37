"""A sweep that chooses its points: each recipe's frontier, resolved at targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from upcurve.errors import InputError
from upcurve.frontier.adaptive import (
    Estimate,
    Goal,
    Target,
    choose,
    estimate,
    is_precise,
    why,
)
from upcurve.frontier.cost import Price, PriceTable
from upcurve.frontier.point import Point
from upcurve.records.run import RunRecord
from upcurve.records.store import Store
from upcurve.sweep.accuracy import Axis
from upcurve.sweep.engine_process import executable
from upcurve.sweep.facts import Machine, engine_environment, run_records
from upcurve.sweep.gate import check_gates, stored_outcomes
from upcurve.sweep.interruption import sigterm_interrupts
from upcurve.sweep.plan import Launch, stored_points
from upcurve.sweep.recipe import Recipe
from upcurve.sweep.runner import (
    HOST,
    Failure,
    LaunchRun,
    Progress,
    SweepResult,
    complete_gate,
)


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
    def begin(cls, recipe: Recipe, record: RunRecord, goal: Goal, store: Store | None) -> Course:
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


def goals_of(
    recipes: Sequence[Recipe],
    interactivities: Sequence[float],
    costs: Sequence[float],
    *,
    precision: float,
    max_points: int | None,
    highest: int | None,
    prices: PriceTable,
    tier: str,
    on: date,
    given: Mapping[str, float],
) -> tuple[list[Goal], list[str]]:
    """Return each recipe's goal, and the prices that it assumes, in words.

    Args:
        recipes: what is measured; repeats are the most rounds of each.
        interactivities: targets in tok/s/user.
        costs: targets in USD per million tokens.
        precision: relative error at each target.
        max_points: measurements of each recipe; None takes as many as its list would.
        highest: highest concurrency; None takes the highest of the recipe's list.
        prices: dated prices.
        tier: kind of provider, as in the table.
        on: date of the prices.
        given: hardware -> USD per GPU-hour, instead of the table's.

    Raises:
        InputError: a price is missing or of no use, or a value cannot be used.
    """
    used = {recipe.hardware for recipe in recipes} if costs else set()
    for hardware in given:
        if hardware not in used:
            problem = f"no cost is asked for on {hardware!r}"
            raise InputError("price", problem, "give --target-cost and the recipe's hardware")
    priced = {
        each: Price(each, given[each]) if each in given else prices.lookup(each, tier, on)
        for each in sorted(used)
    }
    goals = []
    for recipe in recipes:
        targets = [
            *(Target("interactivity", each) for each in interactivities),
            *(Target.of_cost(each, priced[recipe.hardware].usd_per_gpu_hour) for each in costs),
        ]
        budget = max_points or len(recipe.concurrency) * recipe.repeats
        top = highest or max(recipe.concurrency)
        goals.append(Goal(tuple(targets), precision, top, budget, recipe.repeats))
    return goals, [each.describe() for each in priced.values()]


def run_adaptive(
    recipes: Sequence[Recipe],
    goals: Sequence[Goal],
    store: Store,
    *,
    resume: bool,
    progress: Progress,
) -> tuple[SweepResult, list[Outcome]]:
    """Measure recipes at concurrencies chosen one after the other; keep every point at once.

    The first round chooses, the next ones measure again what the value at a target rests on, each
    with a fresh engine; recipes take turns, round by round, in an order that alternates.

    Args:
        recipes: what to measure.
        goals: what is to be known of each.
        store: where to keep it.
        resume: whether points of the store, of the same fingerprint, series and layout, count.
        progress: who is told.

    Raises:
        InputError: a program or a model cannot be found, or the store refuses to write.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; what was measured stays.
    """
    for recipe in recipes:
        executable(recipe.command(host=HOST, port=0), engine_environment(recipe))
    check_gates(recipes, store)
    records = run_records(recipes, Machine.here())
    known = store if resume else None
    courses = [
        Course.begin(recipe, record, goal, known)
        for recipe, record, goal in zip(recipes, records, goals, strict=True)
    ]
    launches = [course.launches() for course in courses]
    every = [each for of in launches for each in of]
    result = SweepResult(skipped=sum(len(each.skipped) for each in every))
    if resume:
        result.gates.extend(stored_outcomes(every, store))
    progress.planned(every)
    with sigterm_interrupts():
        for index in range(max((goal.rounds for goal in goals), default=0)):
            turns = list(zip(courses, launches, strict=True))
            for course, of in turns if index % 2 == 0 else reversed(turns):
                if course.next(index) is not None:
                    launch = replace(of[index], at_most=0, known=tuple(course.points))
                    _measure(course, launch, store, progress, result)
        for course in courses:
            last = Launch(
                course.recipe, course.record, course.goal.rounds - 1, (), known=tuple(course.points)
            )
            complete_gate(last, store, progress, result, course.targets(), resume=resume)
    return result, [each for course in courses for each in course.outcomes()]


def _measure(
    course: Course, launch: Launch, store: Store, progress: Progress, result: SweepResult
) -> None:
    """Measure the points of one round on one engine."""
    points, failures = len(result.points), len(result.failures)

    def take_in() -> None:
        nonlocal points, failures
        course.points += [each.seen for each in result.points[points:]]
        course.failed += [at for each in result.failures[failures:] for at in _tried(each)]
        points, failures = len(result.points), len(result.failures)

    def following() -> int | None:
        take_in()
        return course.next(launch.round)

    LaunchRun(launch, store, progress, result, following, course.targets()).measure()
    take_in()


def _tried(failure: Failure) -> tuple[int, ...]:
    return failure.lost if failure.concurrency is not None else ()
