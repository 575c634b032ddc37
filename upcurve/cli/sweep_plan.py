"""The plan of a sweep, printed: what would be launched, where, and what is measured already."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from typing import Any

import click
import orjson

from upcurve.frontier.goal import Goal
from upcurve.records.queries import OperatingPoint
from upcurve.records.run import RunRecord
from upcurve.records.store import Store
from upcurve.sweep.course import Course
from upcurve.sweep.facts import Machine, run_records
from upcurve.sweep.launch_run import HOST
from upcurve.sweep.plan import Launch, completed, plan
from upcurve.sweep.recipe import Recipe


def print_plan(
    recipes: Sequence[Recipe], goals: Sequence[Goal], location: str, *, resume: bool, as_json: bool
) -> None:
    """Print what would be launched and measured, and the exact commands; run nothing.

    Args:
        recipes: in the order of their turns.
        goals: one for each recipe that chooses its own concurrencies; none where they are listed.
        location: of the store.
        resume: leave out what the store holds already.
        as_json: print lines of JSON.

    Raises:
        InputError: a file of a model cannot be read, or there is no store to resume from.
    """
    records = run_records(recipes, Machine.here())
    done: list[set[OperatingPoint]] = [set() for _ in recipes]
    if goals:
        _print_courses(recipes, records, goals, location, resume=resume, as_json=as_json)
        if not as_json:
            _print_commands(recipes, records)
        return
    if resume:
        with Store.open(location, create=False) as store:
            done = completed(records, store)
    launches = plan(recipes, records, done)
    for launch in launches:
        if as_json:
            click.echo(orjson.dumps(_planned(launch)).decode())
        else:
            click.echo(_planned_line(launch))
    if not as_json:
        _print_commands(recipes, records)


def _print_courses(
    recipes: Sequence[Recipe],
    records: Sequence[RunRecord],
    goals: Sequence[Goal],
    location: str,
    *,
    resume: bool,
    as_json: bool,
) -> None:
    """Print what is known before the first point: bounds, what the store has, where to begin."""
    with contextlib.ExitStack() as opened:
        known = opened.enter_context(Store.open(location, create=False)) if resume else None
        courses = [
            Course.begin(recipe, record, goal, known)
            for recipe, record, goal in zip(recipes, records, goals, strict=True)
        ]
    for course in courses:
        if as_json:
            click.echo(orjson.dumps(course.planned()).decode())
        else:
            click.echo(course.describe())


def _print_commands(recipes: Sequence[Recipe], records: Sequence[RunRecord]) -> None:
    for recipe, record in zip(recipes, records, strict=True):
        click.echo(f"\n{recipe.name}: series {recipe.series}, fingerprint {record.fingerprint}")
        if recipe.accuracy is not None:
            click.echo(f"  {recipe.accuracy.describe()}")
        settings = [f"{name}={value}" for name, value in record.recipe["engine"]["env"].items()]
        words = (["env", *settings] if settings else []) + recipe.command(host=HOST, port="PORT")
        click.echo(f"  {shlex.join(words)}")


def _planned(launch: Launch) -> dict[str, Any]:
    return {
        "series": launch.recipe.series,
        "recipe": launch.recipe.name,
        "repeat": launch.round,
        "concurrencies": launch.concurrencies,
        "skipped": launch.skipped,
        "fingerprint": launch.record.fingerprint,
        "command": launch.recipe.command(host=HOST, port="PORT"),
        "env": launch.record.recipe["engine"]["env"],
    }


def _planned_line(launch: Launch) -> str:
    recipe = launch.recipe
    todo = ", ".join(map(str, launch.concurrencies)) or "nothing left"
    skipped = f" (measured already: {', '.join(map(str, launch.skipped))})"
    return (
        f"round {launch.round + 1} of {recipe.repeats}: {recipe.name}, concurrency {todo}"
        f"{skipped if launch.skipped else ''}"
    )
