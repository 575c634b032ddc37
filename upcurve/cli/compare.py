"""`upcurve compare`: series of the store at equal interactivity."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime

import click

from upcurve.cli.options import NumberList, json_option, store_option
from upcurve.cli.tables import comparison_table, print_table
from upcurve.frontier.comparison import compare, round_targets
from upcurve.frontier.grid import legend, markdown, tidy_rows
from upcurve.frontier.interpolation import DEFAULT_RULE, RULES
from upcurve.records.comparable import comparable_series, differences, series_prices
from upcurve.records.published import prices as published_prices
from upcurve.records.store import Store


class PriceType(click.ParamType[tuple[str, float]]):
    """A price of one GPU-hour: `MI355X=1.48`."""

    name = "HW=USD"

    def convert(
        self,
        value: str | tuple[str, float],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, float]:
        """Parse hardware and price; fail with one line where the price is not positive."""
        if isinstance(value, tuple):
            return value
        hardware, _, text = value.rpartition("=")
        try:
            usd = float(text)
        except ValueError:
            usd = -1
        if not hardware or not 0 < usd < float("inf"):
            self.fail(f"{value!r} is no price of a GPU-hour; give e.g. MI355X=1.48", param, ctx)
        return hardware, usd


@click.command()
@click.argument("series", nargs=-1)
@click.option("--baseline", metavar="NAME", help="What ratios are over.  [default: the first]")
@click.option(
    "--at",
    "targets",
    type=NumberList(),
    metavar="N,N,...",
    help="Interactivities in tok/s/user.  [default: round numbers that every series reaches]",
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
    help="Date of the prices.  [default: each series' own last measurement]",
)
@click.option(
    "--rule",
    type=click.Choice(list(RULES)),
    default=DEFAULT_RULE,
    show_default=True,
    help="How to interpolate on a frontier.",
)
@click.option("--isl", type=click.IntRange(min=1), help="Input length, where there are several.")
@click.option("--osl", type=click.IntRange(min=1), help="Output length, where there are several.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    show_default=True,
    help="What to print.",
)
@json_option
@store_option
def command(
    series: tuple[str, ...],
    baseline: str | None,
    targets: list[float] | None,
    given_prices: tuple[tuple[str, float], ...],
    tier: str,
    on: datetime | None,
    rule: str,
    isl: int | None,
    osl: int | None,
    form: str,
    as_json: bool,
    store: str,
) -> None:
    """Compare SERIES of the store (all, without SERIES) at equal interactivity.

    Throughput per GPU is read from each series' own frontier, never extrapolated; ratios are over
    the baseline; cost is price over throughput.

    \b
    Example:
      upcurve compare feb apr may --baseline feb --at 20,30,40,50,60
      upcurve compare --at 40 --price MI355X=2.10 --format markdown
    """  # noqa: D301
    if as_json and form not in ("table", "json"):
        raise click.UsageError(f"--json and --format {form} exclude each other")
    if baseline and series and baseline not in series:
        series = (baseline, *series)
    with Store.open(store, create=False) as opened:
        compared = comparable_series(opened, series, isl=isl, osl=osl)
    prices, notes = series_prices(
        compared,
        published_prices(),
        tier=tier,
        on=on.date() if on else None,
        given=dict(given_prices),
    )
    points = {each.summary.name: each.points for each in compared}
    baseline = baseline or next(iter(points))
    if targets is None:
        targets = round_targets(points)
        listed = ",".join(f"{target:g}" for target in targets)
        notes.append(f"Targets: --at {listed}, chosen where every frontier has a value.")
    comparison = compare(
        points,
        baseline=baseline,
        targets=targets,
        usd_per_gpu_hour={name: price.usd_per_gpu_hour for name, price in prices.items() if price},
        rule=rule,
    )
    for line in differences(compared):
        click.echo(f"upcurve: warning: {line}", err=True)
    notes += [
        f"Price: {line}." for line in sorted({each.describe() for each in prices.values() if each})
    ]
    if form == "csv":
        _print_csv(tidy_rows(comparison, prices))
    elif as_json or form == "json":
        click.echo(json.dumps(comparison.to_dict(), indent=2))
    else:
        details = {each.summary.name: each.describe() for each in compared}
        notes = [*legend(comparison, details), *notes]
        if form == "markdown":
            click.echo(markdown(comparison, notes), nl=False)
        else:
            print_table(comparison_table(comparison))
            click.echo("\n".join(notes))
        return
    for line in notes:
        click.echo(f"upcurve: {line}", err=True)


def _print_csv(rows: Sequence[Mapping[str, object]]) -> None:
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
