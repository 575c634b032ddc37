"""`upcurve limit`: the throughput that no engine can pass, by a model's bytes and FLOPs."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.table import Table

from upcurve.cli.options import NumberList, json_option, store_option
from upcurve.cli.tables import print_table
from upcurve.errors import InputError
from upcurve.frontier.fit import fit_series
from upcurve.frontier.interpolation import DEFAULT_RULE, Reading
from upcurve.frontier.text import throughput_text
from upcurve.limits.line import LinePoint, at, every_point, line
from upcurve.limits.shape import ModelShape, find_shape, shape_of
from upcurve.records.chips import assumptions, chip
from upcurve.records.run import SeriesSummary
from upcurve.records.store import Store


@click.command("limit")
@click.argument("series", nargs=-1)
@click.option("--model", required=True, metavar="NAME", help="e.g. Qwen3.5-397B-A17B.")
@click.option("--hardware", required=True, metavar="NAME", help="e.g. MI355X.")
@click.option("--isl", type=click.IntRange(min=1), required=True, help="Input length in tokens.")
@click.option("--osl", type=click.IntRange(min=1), required=True, help="Output length in tokens.")
@click.option("--precision", type=click.Choice(["fp8", "bf16"]), default="fp8", show_default=True)
@click.option(
    "--gpus",
    type=NumberList(integers=True),
    metavar="N,N,...",
    help="Layouts, tensor parallel.  [default: powers of two that hold the weights]",
)
@click.option(
    "--at", "targets", type=NumberList(), metavar="N,N,...", help="Interactivities in tok/s/user."
)
@json_option
@store_option
def command(
    series: tuple[str, ...],
    model: str,
    hardware: str,
    isl: int,
    osl: int,
    precision: Any,
    gpus: list[int] | None,
    targets: list[float] | None,
    as_json: bool,
    store: str,
) -> None:
    """Print the speed-of-light line of a model on a GPU, and how close SERIES of the store come.

    Every step takes max(bytes / bandwidth, FLOPs / peak), nothing else: no communication, no
    launches. What an engine gives lies below it.

    \b
    Example:
      upcurve limit --model Qwen3.5-397B-A17B --hardware MI355X --isl 8192 --osl 1024
      upcurve limit feb may --model Qwen3.5-397B-A17B --hardware MI355X --isl 8192 --osl 1024 \\
          --at 20,40,60
    """  # noqa: D301
    shape, own = shape_of(model), chip(hardware)
    points = every_point(shape, precision, own, isl, osl, gpus)
    if series and targets is None:
        targets = [20, 40, 60]
    readings: dict[str, list[Reading]] = {}
    if series:
        with Store.open(store, create=False) as opened:
            summaries = {each.name: each for each in opened.series()}
            for name in series:
                if name in summaries:
                    _check_series(summaries[name], shape, hardware)
                fit = fit_series(name, opened.points(name, isl, osl), DEFAULT_RULE)
                curve = fit.curves[DEFAULT_RULE]
                readings[name] = [curve.at(target) for target in targets or []]
    limits = [at(points, target) for target in targets or []]
    notes = assumptions(own, precision)
    if as_json:
        told = {
            "model": shape.name,
            "hardware": hardware,
            "precision": precision,
            "isl": isl,
            "osl": osl,
            "line": [_to_dict(each) for each in line(points)],
            "at": [
                {
                    "interactivity": target,
                    "tput_per_gpu": limit,
                    "series": {name: of[place].value for name, of in readings.items()},
                }
                for place, (target, limit) in enumerate(zip(targets or [], limits, strict=True))
            ],
            "notes": notes,
        }
        click.echo(json.dumps(told, indent=2))
        return
    print_table(_readings(targets, limits, readings) if targets else _line(line(points)))
    click.echo("\n".join(notes))


def _check_series(of: SeriesSummary, shape: ModelShape, hardware: str) -> None:
    """Refuse a series of another GPU or model: its share of this limit would mean nothing."""
    for option, wanted, found in (
        ("hardware", hardware.casefold(), [each.casefold() for each in of.hardware]),
        ("model", shape, [find_shape(each) for each in of.models]),
    ):
        if any(each is not None and each != wanted for each in found):
            measured = ", ".join(of.hardware if option == "hardware" else of.models)
            problem = (
                f"it was measured on {measured}" if option == "hardware" else f"it is {measured}"
            )
            raise InputError(f"series '{of.name}'", problem, f"give another --{option}")


def _to_dict(each: LinePoint) -> dict[str, Any]:
    return {
        "gpus": each.gpus,
        "batch": each.batch,
        "step_ms": 1000 * each.step_s,
        "bound": each.bound,
        "interactivity": each.interactivity,
        "tput_per_gpu": each.tput_per_gpu,
        "e2e_ms": each.e2e_ms,
    }


def _line(knots: list[LinePoint]) -> Table:
    table = Table()
    for name in ("tok/s/user", "tok/s/GPU", "GPUs", "batch", "step ms"):
        table.add_column(name, justify="right")
    table.add_column("bound by")
    for each in knots:
        table.add_row(
            f"{each.interactivity:,.1f}",
            throughput_text(each.tput_per_gpu),
            str(each.gpus),
            f"{each.batch:,}",
            f"{1000 * each.step_s:.2f}",
            each.bound,
        )
    return table


def _readings(
    targets: list[float], limits: list[float | None], readings: dict[str, list[Reading]]
) -> Table:
    table = Table()
    for name in ("tok/s/user", "limit, tok/s/GPU", *readings):
        table.add_column(name, justify="right", overflow="fold")
    for place, (target, limit) in enumerate(zip(targets, limits, strict=True)):
        cells = []
        for of in readings.values():
            value = of[place].value
            share = f" ({value / limit:.1%})" if value is not None and limit else ""
            outside = of[place].status.replace("_", " ")
            cells.append(outside if value is None else throughput_text(value) + share)
        shown = "unreachable" if limit is None else throughput_text(limit)
        table.add_row(f"{target:g}", shown, *cells)
    return table
