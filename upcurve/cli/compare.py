"""`upcurve compare`: series of the store at equal interactivity."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime

import click

from upcurve.cli.options import FiniteRange, NumberList, json_option, store_option
from upcurve.cli.tables import comparison_table, print_table
from upcurve.frontier.comparison import Comparison
from upcurve.frontier.flag_notes import flag_notes
from upcurve.frontier.grid import flagged, legend, markdown
from upcurve.frontier.interpolation import DEFAULT_RULE, RULES
from upcurve.frontier.latex import latex
from upcurve.records.compared import Pricing, Question, compare_stored
from upcurve.records.store import Store


class Assignment(click.ParamType[tuple[str, float]]):
    """A hardware and its positive number: `MI355X=1.48`."""

    def __init__(self, name: str, what: str, example: str) -> None:
        self.name = name
        self._what = what
        self._example = example

    def convert(
        self,
        value: str | tuple[str, float],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, float]:
        """Parse hardware and number; fail with one line where it is not positive."""
        if isinstance(value, tuple):
            return value
        hardware, _, text = value.rpartition("=")
        try:
            number = float(text)
        except ValueError:
            number = -1
        if not hardware or not 0 < number < float("inf"):
            self.fail(f"{value!r} is no {self._what}; give e.g. {self._example}", param, ctx)
        return hardware, number


class PriceType(Assignment):
    """A price of one GPU-hour: `MI355X=1.48`."""

    def __init__(self) -> None:
        super().__init__("HW=USD", "price of a GPU-hour", "MI355X=1.48")


class SeriesHardware(click.ParamType[tuple[str, str]]):
    """A series and the hardware that it is priced as: `may=H200`."""

    name = "SERIES=HW"

    def convert(
        self,
        value: str | tuple[str, str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, str]:
        """Parse both names; fail with one line where one is missing."""
        if isinstance(value, tuple):
            return value
        series, _, hardware = value.rpartition("=")
        if not series or not hardware:
            self.fail(f"{value!r} names no hardware for a series; give e.g. may=H200", param, ctx)
        return series, hardware


POSITIVE = FiniteRange(min=0, min_open=True)


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
    "--every",
    type=FiniteRange(min=0, min_open=True),
    metavar="N",
    help="Every N tok/s/user that a frontier covers, instead of --at.",
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
    "--as-hardware",
    type=SeriesHardware(),
    multiple=True,
    metavar="SERIES=HW",
    help="Price a series as if its throughput were another GPU's; repeatable.",
)
@click.option(
    "--kw",
    type=Assignment("HW=KW", "power of a GPU in kW", "MI355X=2.09"),
    multiple=True,
    metavar="HW=KW",
    help="Price a hardware by its power, with --usd-per-kwh; on top of its --price, if given.",
)
@click.option("--usd-per-kwh", type=POSITIVE, metavar="USD", help="Price of electricity.")
@click.option(
    "--pue",
    type=FiniteRange(min=1),
    help="Power of the building over that of the machines, where --kw is without it.",
)
@click.option(
    "--output-weight",
    type=POSITIVE,
    metavar="N",
    help="Split the cost: an output token is charged as N input tokens.",
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
    "--require-accuracy",
    is_flag=True,
    help="Exit 1 where a figure rests on points without accuracy, or with one that failed.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "latex", "csv", "json"]),
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
    every: float | None,
    given_prices: tuple[tuple[str, float], ...],
    tier: str,
    on: datetime | None,
    as_hardware: tuple[tuple[str, str], ...],
    kw: tuple[tuple[str, float], ...],
    usd_per_kwh: float | None,
    pue: float | None,
    output_weight: float | None,
    rule: str,
    isl: int | None,
    osl: int | None,
    require_accuracy: bool,
    form: str,
    as_json: bool,
    store: str,
) -> None:
    """Compare SERIES of the store (all, without SERIES) at equal interactivity.

    Throughput per GPU is read from each series' own frontier, never extrapolated; ratios are over
    the baseline; cost is price over throughput. Repeats give 95 % intervals; what is doubtful
    about a figure is said under the table.

    \b
    Example:
      upcurve compare feb apr may --baseline feb --at 20,30,40,50,60
      upcurve compare feb may --every 10 --format latex
      upcurve compare --at 40 --price MI355X=2.10 --format markdown
      upcurve compare --at 40 --kw MI355X=1.9 --usd-per-kwh 0.08 --pue 1.2
      upcurve compare before after --at 40 --require-accuracy
    """  # noqa: D301
    if as_json and form not in ("table", "json"):
        raise click.UsageError(f"--json and --format {form} exclude each other")
    if targets and every:
        raise click.UsageError("--at and --every exclude each other")
    pricing = Pricing(
        given=dict(given_prices),
        tier=tier,
        on=on.date() if on else None,
        as_hardware=dict(as_hardware),
        kw=dict(kw),
        usd_per_kwh=usd_per_kwh,
        pue=pue,
    )
    question = Question(series, baseline, targets, every, rule, isl, osl, output_weight, pricing)
    with Store.open(store, create=False) as opened:
        compared = compare_stored(opened, question)
    comparison, beside = compared.comparison, [*compared.notes, *compared.price_lines()]
    for line in compared.warnings:
        click.echo(f"upcurve: warning: {line}", err=True)
    if form == "csv":
        _print_csv(compared.tidy_rows())
    elif as_json or form == "json":
        click.echo(json.dumps(compared.to_dict(), indent=2))
    else:
        notes = [*legend(comparison, compared.details()), *compared.notes]
        if form == "markdown":
            click.echo(markdown(comparison, notes), nl=False)
        elif form == "latex":
            click.echo(latex(comparison, notes), nl=False)
        else:
            print_table(comparison_table(comparison))
            click.echo("\n".join(notes))
        beside = []
    for line in beside:
        click.echo(f"upcurve: {line}", err=True)
    if require_accuracy and (doubts := _without_accuracy(comparison)):
        for line in doubts:
            click.echo(f"upcurve: error: {line}", err=True)
        click.get_current_context().exit(1)


def _without_accuracy(comparison: Comparison) -> list[str]:
    """Return what is said against the accuracy of figures, a line a kind."""
    doubts = ("accuracy_missing", "accuracy_failed")
    return flag_notes(
        (name, target, [flag for flag in flags if flag.code in doubts])
        for name, target, flags in flagged(comparison)
    )


def _print_csv(rows: Sequence[Mapping[str, object]]) -> None:
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
