"""A sweep that chooses its points: each recipe's frontier, resolved at targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from upcurve.errors import InputError
from upcurve.frontier.cost import Price, PriceTable
from upcurve.frontier.goal import Goal, Target
from upcurve.records.store import Store
from upcurve.sweep.course import Course, Outcome
from upcurve.sweep.engine_process import executable
from upcurve.sweep.facts import Machine, engine_environment, run_records
from upcurve.sweep.gate import check_gates, stored_outcomes
from upcurve.sweep.interruption import sigterm_interrupts
from upcurve.sweep.launch_run import HOST, LaunchRun
from upcurve.sweep.plan import Launch
from upcurve.sweep.recipe import Recipe
from upcurve.sweep.result import Failure, Progress, SweepResult
from upcurve.sweep.runner import complete_gate


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
