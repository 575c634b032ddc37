"""`upcurve sweep`: run recipes, watch them, print what they gave."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console

from upcurve.cli.options import json_option, store_option
from upcurve.cli.tables import print_table
from upcurve.records.queries import OperatingPoint
from upcurve.records.store import Store
from upcurve.sweep.facts import Machine, run_records
from upcurve.sweep.plan import Launch, completed, plan
from upcurve.sweep.recipe import Recipe, load_recipe
from upcurve.sweep.runner import HOST, Failure, Measured, run_sweep
from upcurve.sweep.view import LiveView, PlainLines, summary


@click.command()
@click.argument("recipes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a value of every recipe: a dotted key, a value in YAML; repeatable.",
)
@click.option("--resume", is_flag=True, help="Skip points that the store holds already.")
@click.option("--dry-run", is_flag=True, help="Print the plan and the exact commands; run nothing.")
@json_option
@store_option
def command(
    recipes: tuple[Path, ...],
    overrides: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    as_json: bool,
    store: str,
) -> None:
    """Run RECIPES: launch each engine, measure every concurrency, record, stop.

    Several recipes take turns, round by round, each round with a fresh engine. A point is stored as
    soon as it is measured. Exits with 1 where an engine or a point failed.

    \b
    Example:
      upcurve sweep recipes/qwen35-small-cpu.yaml
      upcurve sweep before.yaml after.yaml --set repeats=5 --set workload.isl=1024
      upcurve sweep before.yaml after.yaml --resume
    """  # noqa: D301
    loaded = [load_recipe(path, overrides) for path in recipes]
    if dry_run:
        _print_plan(loaded, store, resume=resume, as_json=as_json)
        return
    console = Console(stderr=True)
    view: PlainLines | LiveView
    if as_json:
        view = _JsonLines(console)
    else:
        view = LiveView(console) if console.is_terminal else PlainLines(console)
    try:
        with Store.open(store) as opened, view:
            result = run_sweep(loaded, opened, resume=resume, progress=view)
    except KeyboardInterrupt:
        click.echo(f"upcurve: what was measured stays in {store}; --resume goes on", err=True)
        raise
    if result.points and not as_json:
        print_table(summary(result.points))
    ended = f"{len(result.points)} points measured, {result.skipped} skipped"
    lost = sum(len(failure.lost) for failure in result.failures)
    click.echo(f"upcurve: {ended}, {lost} lost; the store is {store}", err=True)
    if result.failures:
        click.get_current_context().exit(1)


class _JsonLines(PlainLines):
    """Plain lines on stderr, and each point and failure as one line of JSON on stdout."""

    def measured(self, measured: Measured) -> None:
        """Print a point: what `upcurve bench --json` prints, and where it belongs."""
        super().measured(measured)
        point = measured.point
        place = {"tp": point.tp, "gpus": point.gpus, "repeat": point.repeat}
        _print_json(point.result | _place(measured.launch, measured.run_id) | place)

    def failed(self, failure: Failure) -> None:
        """Print what failed and which concurrencies were not measured because of it."""
        super().failed(failure)
        what = {"error": failure.problem, "concurrency": failure.concurrency, "lost": failure.lost}
        _print_json(
            _place(failure.launch, failure.run_id) | {"repeat": failure.launch.round} | what
        )


def _place(launch: Launch, run_id: str) -> dict[str, Any]:
    return {"series": launch.recipe.series, "recipe": launch.recipe.name, "run": run_id}


def _print_json(value: dict[str, Any]) -> None:
    click.echo(orjson.dumps(value).decode())


def _print_plan(recipes: Sequence[Recipe], location: str, *, resume: bool, as_json: bool) -> None:
    records = run_records(recipes, Machine.here())
    done: list[set[OperatingPoint]] = [set() for _ in recipes]
    if resume:
        with Store.open(location, create=False) as store:
            done = completed(records, store)
    launches = plan(recipes, records, done)
    for launch in launches:
        if as_json:
            _print_json(_planned(launch))
        else:
            click.echo(_planned_line(launch))
    if as_json:
        return
    for recipe, record in zip(recipes, records, strict=True):
        click.echo(f"\n{recipe.name}: series {recipe.series}, fingerprint {record.fingerprint}")
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
