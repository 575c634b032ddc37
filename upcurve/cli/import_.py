"""`upcurve import`: rows of other clients, of an export or of a published set, into the store."""

from __future__ import annotations

from dataclasses import asdict

import click
import orjson

from upcurve.cli.options import json_option, store_option


@click.command("import")
@click.argument("location", metavar="FILE.csv|FILE.json|published:NAME")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Value of a column that the file lacks, the same for every row; repeatable.",
)
@store_option
@json_option
def command(location: str, assignments: tuple[str, ...], store: str, as_json: bool) -> None:
    """Bring measured rows into the store: all of a file or nothing of it.

    Needed columns: series, measured_on, hardware, model, isl, osl, tp, gpus, concurrency,
    tput_per_gpu, interactivity. Known besides: engine, engine_version, engine_commit, image,
    precision, repeat, input_tput_per_gpu, output_tput_per_gpu, tpot_ms, ttft_ms, requests, failed,
    change, harness_version, and all that `upcurve export` writes. Other columns are kept as they
    are. JSON is a list of row objects, or what `export --json` or `bench --json` printed.

    \b
    Example:
      upcurve import published:mi355x-qwen35
      upcurve import rows.csv --store ./results
      upcurve import bench.json --set series=mine --set model=qwen --set hardware=H200 \\
        --set tp=1 --set gpus=1 --set measured_on=2026-11-29
    """  # noqa: D301
    from upcurve.records.rows import RowsError, add_rows, read_assignments, read_rows
    from upcurve.records.store import Store

    try:
        rows = read_rows(location, read_assignments(assignments))
    except RowsError as error:
        if as_json:
            click.echo(orjson.dumps(error.as_dict(), option=orjson.OPT_INDENT_2))
        raise
    with Store.open(store) as opened:
        done = add_rows(opened, rows)
    for warning in done.warnings:
        click.echo(f"upcurve: warning: {warning}", err=True)
    if as_json:
        click.echo(orjson.dumps(asdict(done), option=orjson.OPT_INDENT_2))
    else:
        click.echo("\n".join(done.lines(store)))
