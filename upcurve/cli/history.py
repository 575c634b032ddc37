"""`upcurve history`: a metric over builds, its change points, and what came between."""

from __future__ import annotations

import json
from typing import cast

import click
from rich.table import Table

from upcurve.cli.options import FiniteRange, NumberList, json_option, store_option
from upcurve.cli.tables import print_table
from upcurve.frontier.build_values import METRICS
from upcurve.frontier.trend import direction
from upcurve.records.history import PUBLISHED, By, histories
from upcurve.records.store import Store
from upcurve.records.trends import Followed, Following, follow, to_dict

BAR = "▏▎▍▌▋▊▉█"
BAR_CELLS = 12


@click.command()
@click.argument("patterns", metavar="[SERIES-PATTERN]...", nargs=-1)
@click.option(
    "--at", "targets", type=NumberList(), metavar="N,N,...", help="Interactivities in tok/s/user."
)
@click.option("--concurrency", type=click.IntRange(min=1), help="One concurrency instead.")
@click.option(
    "--metric",
    type=click.Choice(list(METRICS)),
    default="tput",
    show_default=True,
    help="What to follow; interactivity, ttft_ms and tpot_ms only at a --concurrency.",
)
@click.option(
    "--by",
    type=click.Choice(["build", "date"]),
    default="build",
    show_default=True,
    help="One value for each engine version, commit and image, or for each day (UTC).",
)
@click.option("--join", "joined", is_flag=True, help="Take series of any names as one history.")
@click.option("--isl", type=click.IntRange(min=1), help="Input length to choose.")
@click.option("--osl", type=click.IntRange(min=1), help="Output length to choose.")
@click.option("--price", type=float, metavar="USD", help="USD per GPU-hour, for usd_per_million.")
@click.option("--tier", default="hyperscaler", show_default=True, help="Kind of provider.")
@click.option(
    "--min-change",
    type=FiniteRange(min=0, max=1),
    default=0.01,
    show_default=True,
    help="Smallest relative change that counts.",
)
@click.option(
    "--fail-on-regression",
    is_flag=True,
    help="Exit with 1 where the newest change point of any history is a regression that counts.",
)
@json_option
@store_option
def command(
    patterns: tuple[str, ...],
    targets: list[float] | None,
    concurrency: int | None,
    metric: str,
    by: str,
    joined: bool,
    isl: int | None,
    osl: int | None,
    price: float | None,
    tier: str,
    min_change: float,
    fail_on_regression: bool,
    as_json: bool,
    store: str,
) -> int:
    """Follow a metric over the builds of series, and find where it changed.

    Series whose names differ in a version, date, month or commit at their end are one history,
    where engine, model, hardware, precision and workload are equal too. PATTERN is a name, with *
    and ?, or published:NAME; none means all of the store.

    \b
    Example:
      upcurve history published:mi355x-qwen35 --at 20,40
      upcurve history 'nightly*' --at 40 --json --fail-on-regression
      upcurve history --concurrency 32 --metric ttft_ms --by date
    """  # noqa: D301
    chosen = METRICS[metric]
    if (targets is None) == (concurrency is None):
        raise click.UsageError("give one of --at N and --concurrency N")
    if targets is not None and not chosen.along_curve:
        raise click.UsageError(f"--metric {metric} is of one point: give --concurrency, not --at")
    what = Following(metric, targets, concurrency, price, tier, min_change)
    what.check()
    if patterns and all(each.startswith(PUBLISHED) for each in patterns):
        found = histories(None, patterns, by=cast("By", by), joined=joined, isl=isl, osl=osl)
    else:
        with Store.open(store, create=False) as opened:
            found = histories(opened, patterns, by=cast("By", by), joined=joined, isl=isl, osl=osl)
    results, notes = follow(found, what)
    for note in notes:
        click.echo(f"upcurve: {note}", err=True)
    if as_json:
        click.echo(json.dumps(to_dict(results, what, cast("By", by)), indent=2))
    else:
        for number, each in enumerate(results):
            line = f"{each.history.describe()}; {chosen.name} at {each.place}"
            click.echo("\n" * (number > 0) + line)
            _print(each)
    regressed = any(each.trend.state == "regression" for each in results)
    return 1 if fail_on_regression and regressed else 0


def _print(followed: Followed) -> None:
    history, values, trend = followed.history, followed.values, followed.trend
    metric, price = followed.metric, followed.price
    table = Table()
    table.add_column("build", overflow="fold")
    table.add_column("measured", no_wrap=True)
    table.add_column(metric.unit, justify="right", no_wrap=True)
    for head in ("95 % interval", "rounds"):
        table.add_column(head, justify="right")
    table.add_column("", no_wrap=True)
    table.add_column("level")
    steps = trend.steps
    borders = {each.index: each for each in (steps.change_points if steps else ())}
    largest = max((each.value for each in values if each.value is not None), default=1.0)
    for index, (build, value) in enumerate(zip(history.builds, values, strict=True)):
        mark = "stray" if steps and index in steps.strays else ""
        if index in borders:
            table.add_section()
            step = borders[index]
            mark = f"{direction(metric, step.ratio)} {step.ratio - 1:+.1%}"
        low_high = " to ".join(f"{each:.4g}" for each in value.interval or ())
        table.add_row(
            build.label,
            str(build.first.date()),
            value.status.replace("_", " ") if value.value is None else f"{value.value:,.4g}",
            low_high,
            str(value.rounds) if value.rounds else "",
            _bar((value.value or 0) / largest),
            mark,
        )
    print_table(table)
    click.echo(f"{trend.state}: {trend.reason}")
    for note in trend.notes:
        click.echo(f"Note: {note}.")
    if price:
        click.echo(f"Price of all builds: {price.describe()}.")
    # Without change points there is no border to choose: every build's changes are told.
    for index in borders or range(1, len(history.builds)):
        lines = [*followed.changes(index), *followed.differences(index)]
        before, after = history.builds[index - 1].label, history.builds[index].label
        click.echo(f"From {before} to {after}:" + ("" if lines else " nothing recorded differs"))
        click.echo("".join(f"  {line}\n" for line in lines), nl=False)


def _bar(share: float) -> str:
    eighths = round(share * BAR_CELLS * 8)
    full, rest = divmod(eighths, 8)
    return BAR[-1] * full + (BAR[rest - 1] if rest else "")
