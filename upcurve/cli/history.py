"""`upcurve history`: a metric over builds, its change points, and what came between."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, cast

import click
from rich.table import Table

from upcurve.cli.options import FiniteRange, NumberList, json_option, store_option
from upcurve.cli.tables import print_table
from upcurve.errors import InputError
from upcurve.frontier.cost import Price
from upcurve.frontier.trend import (
    METRICS,
    Metric,
    Trend,
    Value,
    at_interactivity,
    at_operating_point,
    direction,
    judge,
    operating_point,
)
from upcurve.records.history import (
    PUBLISHED,
    By,
    History,
    changes_between,
    differences,
    histories,
)
from upcurve.records.published import prices as published_prices
from upcurve.records.store import Store

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
    if price is not None and not 0 < price < float("inf"):
        raise InputError("price", f"{price} is no price", "give USD per GPU-hour, e.g. 1.48")
    if patterns and all(each.startswith(PUBLISHED) for each in patterns):
        found = histories(None, patterns, by=cast("By", by), joined=joined, isl=isl, osl=osl)
    else:
        with Store.open(store, create=False) as opened:
            found = histories(opened, patterns, by=cast("By", by), joined=joined, isl=isl, osl=osl)
    results = []
    for history in found:
        assumed = _price(history, price, tier) if metric == "usd_per_million" else None
        for place, values in _values(history, chosen, targets or [], concurrency, assumed):
            results.append((history, place, assumed, values, judge(values, chosen, min_change)))
    if not results:
        raise InputError("concurrency", f"none measured {concurrency}", "choose another")
    if as_json:
        printed = [_to_dict(*result, chosen) for result in results]
        settings = {"metric": metric, "unit": chosen.unit, "by": by, "min_change": min_change}
        click.echo(json.dumps(settings | {"histories": printed}, indent=2))
    else:
        for number, (history, place, assumed, values, trend) in enumerate(results):
            click.echo("\n" * (number > 0) + f"{history.describe()}; {chosen.name} at {place}")
            _print(history, values, trend, chosen, assumed)
    regressed = any(trend.state == "regression" for *_, trend in results)
    return 1 if fail_on_regression and regressed else 0


def _price(history: History, given: float | None, tier: str) -> Price | None:
    """Return one price for all builds, of the newest one's day: cost moves with speed alone."""
    if given is not None:
        return Price(history.hardware, given)
    table = published_prices()
    if history.hardware not in table.hardware:
        click.echo(f"upcurve: no cost: {history.hardware} has no price; give --price", err=True)
        return None
    return table.lookup(history.hardware, tier, history.builds[-1].last.date())


def _values(
    history: History,
    metric: Metric,
    targets: Sequence[float],
    concurrency: int | None,
    price: Price | None,
) -> Iterator[tuple[str, list[Value]]]:
    builds = [build.measurements for build in history.builds]
    usd = price.usd_per_gpu_hour if price else None
    for target in targets:
        yield f"{target:g} tok/s/user", at_interactivity(builds, target, metric, usd)
    places = {operating_point(each.point) for build in builds for each in build}
    for tp, gpus, own in sorted(places):
        if own == concurrency:
            label = f"concurrency {own}, TP{tp}" + (f" on {gpus} GPUs" if gpus != tp else "")
            yield label, at_operating_point(builds, (tp, gpus, own), metric, usd)


def _to_dict(
    history: History,
    place: str,
    price: Price | None,
    values: Sequence[Value],
    trend: Trend,
    metric: Metric,
) -> dict[str, Any]:
    steps = trend.steps
    found = steps.change_points if steps else ()
    strays = steps.strays if steps else ()
    return {
        "history": history.describe(),
        "name": history.name,
        "engine": history.engine,
        "model": history.model,
        "hardware": history.hardware,
        "precision": history.precision,
        "isl": history.workload[0],
        "osl": history.workload[1],
        "at": place,
        "price": price.describe() if price else None,
        "state": trend.state,
        "reason": trend.reason,
        "notes": list(trend.notes),
        "noise": steps.noise if steps else None,
        "builds": [
            {
                "build": build.label,
                "first_measured_at": build.first.isoformat(),
                "series": list(build.series),
                **value.to_dict(),
                "stray": index in strays,
                "changes": _changes(history, index),
                "differences": _differences(history, index),
            }
            for index, (build, value) in enumerate(zip(history.builds, values, strict=True))
        ],
        "change_points": [
            {
                "build": history.builds[each.index].label,
                "after_build": history.builds[each.index - 1].label,
                "direction": direction(metric, each.ratio),
                "before": each.before,
                "after": each.after,
                "ratio": each.ratio,
                "interval": list(each.interval),
                "p_value": each.p_value,
                "changes": _changes(history, each.index),
                "differences": _differences(history, each.index),
            }
            for each in found
        ],
    }


def _changes(history: History, index: int) -> list[str]:
    pair = history.builds[index - 1 : index + 1]
    return changes_between(history, *pair) if index else list(history.builds[0].changes)


def _differences(history: History, index: int) -> list[str]:
    return differences(*history.builds[index - 1 : index + 1]) if index else []


def _print(
    history: History, values: Sequence[Value], trend: Trend, metric: Metric, price: Price | None
) -> None:
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
        lines = [*_changes(history, index), *_differences(history, index)]
        before, after = history.builds[index - 1].label, history.builds[index].label
        click.echo(f"From {before} to {after}:" + ("" if lines else " nothing recorded differs"))
        click.echo("".join(f"  {line}\n" for line in lines), nl=False)


def _bar(share: float) -> str:
    eighths = round(share * BAR_CELLS * 8)
    full, rest = divmod(eighths, 8)
    return BAR[-1] * full + (BAR[rest - 1] if rest else "")
