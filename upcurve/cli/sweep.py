"""`upcurve sweep`: run recipes, watch them, print what they gave."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console

from upcurve.cli.compare import Assignment
from upcurve.cli.options import FiniteRange, NumberList, json_option, store_option
from upcurve.cli.sweep_plan import print_plan
from upcurve.cli.tables import print_table
from upcurve.frontier.goal import Goal
from upcurve.records.published import prices as published_prices
from upcurve.records.store import Store
from upcurve.sweep.adaptive import goals_of, run_adaptive
from upcurve.sweep.gate import GateOutcome
from upcurve.sweep.plan import Launch
from upcurve.sweep.recipe import check_said, load_recipe
from upcurve.sweep.result import Failure, Measured
from upcurve.sweep.runner import run_sweep
from upcurve.sweep.summary import summary
from upcurve.sweep.view import LiveView, PlainLines, gate_line


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
@click.option(
    "--target-interactivity",
    "interactivities",
    type=NumberList(),
    metavar="N,N,...",
    help="Choose concurrencies that resolve the frontier at these tok/s/user.",
)
@click.option(
    "--target-cost",
    "costs",
    type=NumberList(),
    metavar="USD,USD,...",
    help="The same, where a million tokens cost so much.",
)
@click.option(
    "--precision",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.02,
    show_default=True,
    help="Of a target: relative error at which it is resolved.",
)
@click.option(
    "--max-points",
    type=click.IntRange(min=1),
    help="Of a target: measurements for each recipe, repeats included.  [default: as its list]",
)
@click.option(
    "--max-concurrency",
    type=click.IntRange(min=1),
    help="Of a target: the highest to measure.  [default: the highest of the recipe's list]",
)
@click.option(
    "--price",
    "given_prices",
    type=Assignment("HW=USD", "price of a GPU-hour", "MI355X=1.48"),
    multiple=True,
    metavar="HW=USD",
    help="Of --target-cost: USD per GPU-hour instead of the dated table's; repeatable.",
)
@click.option("--tier", default="hyperscaler", show_default=True, help="Kind of provider.")
@click.option(
    "--on",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="Date of the prices.  [default: today]",
)
@json_option
@store_option
def command(
    recipes: tuple[Path, ...],
    overrides: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    interactivities: list[float] | None,
    costs: list[float] | None,
    precision: float,
    max_points: int | None,
    max_concurrency: int | None,
    given_prices: tuple[tuple[str, float], ...],
    tier: str,
    on: datetime | None,
    as_json: bool,
    store: str,
) -> None:
    """Run RECIPES: launch each engine, measure every concurrency, record, stop.

    Several recipes take turns, round by round, each round with a fresh engine. A point is stored as
    soon as it is measured. Exits with 1 where an engine or a point failed, or an accuracy gate.

    With a target the list of concurrencies is not measured: each recipe chooses its own, next to
    the target, until the value there is known to the precision, and says why it ended.

    \b
    Example:
      upcurve sweep recipes/qwen35-small-cpu.yaml
      upcurve sweep before.yaml after.yaml --set repeats=5 --set workload.isl=1024
      upcurve sweep before.yaml after.yaml --resume
      upcurve sweep recipe.yaml --target-interactivity 40 --precision 0.02 --max-points 12
      upcurve sweep recipe.yaml --target-cost 0.12 --price MI355X=1.48
    """  # noqa: D301
    loaded = [load_recipe(path, overrides) for path in recipes]
    for path, recipe in zip(recipes, loaded, strict=True):
        check_said(path, overrides, recipe)
    goals: list[Goal] = []
    if interactivities or costs:
        goals, assumed = goals_of(
            loaded,
            interactivities or [],
            costs or [],
            precision=precision,
            max_points=max_points,
            highest=max_concurrency,
            prices=published_prices(),
            tier=tier,
            on=(on or datetime.now(UTC)).date(),
            given=dict(given_prices),
        )
        for line in assumed:
            click.echo(f"upcurve: price: {line}", err=True)
    else:
        _refuse_without_target()
    if dry_run:
        print_plan(loaded, goals, store, resume=resume, as_json=as_json)
        return
    console = Console(stderr=True)
    view: PlainLines | LiveView
    if as_json:
        view = _JsonLines(console)
    else:
        view = LiveView(console) if console.is_terminal else PlainLines(console)
    try:
        with Store.open(store) as opened, view:
            if goals:
                result, outcomes = run_adaptive(loaded, goals, opened, resume=resume, progress=view)
            else:
                result, outcomes = run_sweep(loaded, opened, resume=resume, progress=view), []
    except KeyboardInterrupt:
        click.echo(f"upcurve: what was measured stays in {store}; --resume goes on", err=True)
        raise
    if result.points and not as_json:
        print_table(summary(result.points))
    for outcome in outcomes:
        if as_json:
            _print_json(outcome.to_dict())
        else:
            click.echo(outcome.describe())
    ended = f"{len(result.points)} points measured, {result.skipped} skipped"
    lost = sum(len(failure.lost) for failure in result.failures)
    click.echo(f"upcurve: {ended}, {lost} lost; the store is {store}", err=True)
    failed = [each for each in result.gates if not each.passed]
    for each in result.gates:
        if each.before:
            click.echo(f"upcurve: {gate_line(each)}", err=True)
    if failed:
        listed = ", ".join(f"{each.launch.recipe.name} c{each.concurrency}" for each in failed)
        click.echo(f"upcurve: error: the accuracy gate failed at {listed}", err=True)
    if result.ungated:
        listed = ", ".join(f"{recipe.name} c{at}" for recipe, at in result.ungated)
        click.echo(f"upcurve: error: no accuracy at {listed}", err=True)
    if result.failures or failed or result.ungated:
        click.get_current_context().exit(1)


def _refuse_without_target() -> None:
    """Refuse what says how to reach a target where there is none."""
    context = click.get_current_context()
    for name in ("precision", "max_points", "max_concurrency", "given_prices", "tier", "on"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = "price" if name == "given_prices" else name.replace("_", "-")
            raise click.UsageError(f"--{option} is of a target: give --target-interactivity N")


class _JsonLines(PlainLines):
    """Plain lines on stderr, and each point and failure as one line of JSON on stdout."""

    def measured(self, measured: Measured) -> None:
        """Print a point: what `upcurve bench --json` prints, and where it belongs."""
        super().measured(measured)
        point = measured.point
        place = {**measured.launch.recipe.layout.columns, "repeat": point.repeat}
        _print_json(point.result | _place(measured.launch, measured.run_id) | place)

    def evaluated(self, outcome: GateOutcome) -> None:
        """Print what the accuracy gate said of a point."""
        super().evaluated(outcome)
        place = {"concurrency": outcome.concurrency, "repeat": outcome.launch.round}
        judged = {"accuracy": outcome.accuracy}
        _print_json(_place(outcome.launch, outcome.run_id) | place | judged)

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
