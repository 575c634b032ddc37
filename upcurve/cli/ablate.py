"""`upcurve ablate`: the move between all switches off and all on, split over the switches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from upcurve.cli.ablate_view import print_outcome, print_plan
from upcurve.cli.compare import PriceType
from upcurve.cli.options import FiniteRange, NumberList, json_option, store_option
from upcurve.errors import InputError
from upcurve.frontier.interpolation import DEFAULT_RULE, RULES
from upcurve.frontier.shapley import Configuration
from upcurve.frontier.waterfall import order_remark
from upcurve.records.published import prices as published_prices
from upcurve.records.store import Store
from upcurve.sweep.ablation import Ablation
from upcurve.sweep.ablation_rounds import run_ablation, splitter
from upcurve.sweep.prices import recipe_prices
from upcurve.sweep.schedule import Schedule
from upcurve.sweep.switch import Switch, parse_switches
from upcurve.sweep.view import LiveView, PlainLines


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--switch",
    "switch_texts",
    multiple=True,
    required=True,
    metavar="A,B,...",
    help="NAME of an engine's switch (off: --off NAME), env:NAME=VALUE, flag:--x=y or "
    "set:KEY=VALUE (on: set, appended, overridden); repeatable.",
)
@click.option(
    "--at",
    "targets",
    type=NumberList(),
    required=True,
    metavar="N,N,...",
    help="Interactivities in tok/s/user.",
)
@click.option(
    "--design",
    type=click.Choice(["full", "shapley", "one"]),
    help="full: every configuration; shapley: some orders, drawn anew in each round; one: each "
    "switch alone and last.  [default: full up to 4 switches, else shapley]",
)
@click.option(
    "--orders",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Pairs of an order and its reverse in a round of the design shapley.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Rounds that are measured in any case.",
)
@click.option(
    "--max-rounds",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="N",
    help="Rounds after which it ends in any case.",
)
@click.option(
    "--precision",
    type=FiniteRange(min=0, min_open=True),
    default=0.02,
    show_default=True,
    metavar="P",
    help="It ends once every share is known to +-P in log ratio (0.02: about 2 %).",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the order of launches, and of the orders of the design shapley.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a value of the recipe in every configuration; repeatable.",
)
@click.option(
    "--price",
    "given_prices",
    type=PriceType(),
    multiple=True,
    metavar="HW=USD",
    help="USD per GPU-hour of a hardware instead of the dated table's; repeatable.",
)
@click.option("--tier", default="hyperscaler", show_default=True, help="Kind of provider.")
@click.option(
    "--on",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="Date of the prices.  [default: today]",
)
@click.option(
    "--rule",
    type=click.Choice(list(RULES)),
    default=DEFAULT_RULE,
    show_default=True,
    help="How to interpolate on a frontier.",
)
@click.option("--resume", is_flag=True, help="Skip points that the store holds already.")
@click.option("--dry-run", is_flag=True, help="Print the plan and the exact commands; run nothing.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    show_default=True,
    help="What to print.",
)
@click.option(
    "--chart",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg|png",
    help="Draw the waterfall, baseline to full, with error bars.",
)
@json_option
@store_option
def command(
    recipe: Path,
    switch_texts: tuple[str, ...],
    targets: list[float],
    design: Any,
    orders: int,
    rounds: int,
    max_rounds: int,
    precision: float,
    seed: int,
    overrides: tuple[str, ...],
    given_prices: tuple[tuple[str, float], ...],
    tier: str,
    on: datetime | None,
    rule: str,
    resume: bool,
    dry_run: bool,
    form: str,
    chart: Path | None,
    as_json: bool,
    store: str,
) -> None:
    """Measure RECIPE with switches off and on, and split the move over the switches.

    Configurations take turns in a random order, each with a fresh engine, round by round. Exits
    with 1 where an engine or a point failed, or a target has no shares.

    \b
    Example:
      upcurve ablate recipe.yaml --switch fused_norm,fused_topk,cuda_graphs --at 40
      upcurve ablate recipe.yaml --switch env:SGLANG_USE_AITER=1,flag:--page-size=16 --at 30,40
      upcurve ablate recipe.yaml --switch a,b --at 40 --resume --chart move.svg
    """  # noqa: D301
    if as_json and form not in ("table", "json"):
        raise click.UsageError(f"--json and --format {form} exclude each other")
    form = "json" if as_json else form
    if chart is not None:
        from upcurve.dashboard.waterfall import check_chart_file

        check_chart_file(chart)
    switches = parse_switches(switch_texts)
    schedule = Schedule.choose([each.label for each in switches], design, seed=seed, pairs=orders)
    if rounds > max_rounds:
        raise InputError(
            "max-rounds",
            f"{max_rounds} are fewer than --rounds {rounds}",
            "raise it, or lower --rounds",
        )
    ablation = Ablation(recipe, overrides, switches, schedule, rounds=rounds, max_rounds=max_rounds)
    _check_engine_switches(ablation, switches)
    prices, notes = recipe_prices(
        ablation.recipes(),
        published_prices(),
        tier=tier,
        on=(on or datetime.now(UTC)).date(),
        given=dict(given_prices),
    )
    if dry_run:
        print_plan(ablation, rounds, store, resume=resume, as_json=form == "json")
        return

    def price_of(configuration: Configuration) -> float | None:
        price = prices.get(ablation.recipe(configuration).hardware)
        return None if price is None else price.usd_per_gpu_hour

    console = Console(stderr=True)
    live = console.is_terminal and form == "table"
    view: PlainLines | LiveView = LiveView(console) if live else PlainLines(console)
    split = splitter(schedule, targets, rule=rule, prices=price_of)
    try:
        with Store.open(store) as opened, view:
            outcome = run_ablation(
                ablation,
                opened,
                split,
                rounds=rounds,
                max_rounds=max_rounds,
                precision=precision,
                resume=resume,
                progress=view,
            )
    except KeyboardInterrupt:
        click.echo(f"upcurve: what was measured stays in {store}; --resume goes on", err=True)
        raise
    notes += [f"Price: {each.describe()}." for each in prices.values()]
    notes.append(order_remark(schedule.design, seed))
    print_outcome(outcome, ablation, notes, form, precision=precision, rule=rule)
    if chart is not None and any(each.shares for each in outcome.attributions):
        from upcurve.dashboard.waterfall import waterfall_chart, write_chart

        device = (
            "CPU" if set(prices) | {r.hardware for r in ablation.recipes()} == {"CPU"} else "GPU"
        )
        write_chart(chart, waterfall_chart(outcome.attributions, device=device))
        click.echo(f"upcurve: the chart is {chart}", err=True)
    failed = [gate.launch.recipe.series for gate in outcome.gates if not gate.passed]
    if failed:
        listed = ", ".join(dict.fromkeys(failed))
        click.echo(f"upcurve: error: the accuracy gate failed at {listed}", err=True)
    if outcome.failures or failed or not all(each.shares for each in outcome.attributions):
        click.get_current_context().exit(1)


def _check_engine_switches(ablation: Ablation, switches: Sequence[Switch]) -> None:
    """Refuse a switch that the own engine does not have, before anything is launched."""
    if ablation.recipe(Configuration()).engine.command[0] != "upcurve":
        return
    from upcurve.engine.switches import Switches

    for switch in switches:
        if switch.kind == "engine" and switch.value not in Switches.names():
            known = ", ".join(Switches.names())
            raise InputError(
                f"--switch {switch.value}", "the engine has no such switch", f"it has {known}"
            )
