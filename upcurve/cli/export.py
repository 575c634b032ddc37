"""`upcurve export`: rows of the store as CSV or JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from upcurve.cli.errors import needs
from upcurve.cli.options import store_option

if TYPE_CHECKING:
    from upcurve.records.export import Form


@click.command("export")
@click.option("--series", multiple=True, metavar="NAME", help="Only this series; repeatable.")
@click.option(
    "--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a file, replaced whole or not at all, instead of stdout.",
)
@click.option(
    "--site",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the dashboard as static files: any web server shows them, and index.html opens "
    "from the disk. DIR is replaced whole.",
)
@store_option
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(
    series: tuple[str, ...],
    form: Form,
    output: Path | None,
    site: Path | None,
    store: str,
    as_json: bool,
) -> None:
    """Write the rows of a store, one per measured point, so that `upcurve import` reads them back.

    Everything is in the rows but request traces and logs. Text stands as it was recorded: a
    spreadsheet takes a name that begins with "=" for a formula.

    \b
    Example:
      upcurve export --series feb --series may --output rows.csv
      upcurve export --format json | jq '.[].tput_per_gpu'
      upcurve export --site ./public
    """  # noqa: D301
    from upcurve.records import export
    from upcurve.records.store import Store

    if site is not None:
        if series or output is not None:
            raise click.UsageError("--site takes all of a store: no --series, no --output")
        _write_site(site, store, as_json=as_json)
        return
    form = "json" if as_json else form
    with Store.open(store, create=False) as opened:
        if output is None:
            export.write(opened, sys.stdout.buffer, form, series)
            sys.stdout.buffer.flush()
        else:
            count = export.write_file(opened, output, form, series)
            click.echo(f"{count} rows written to {output}", err=True)


def _write_site(folder: Path, store: str, *, as_json: bool) -> None:
    from dataclasses import asdict

    import orjson

    with needs("dashboard"):
        from upcurve.dashboard.reader import Reader
        from upcurve.dashboard.site import export_site
    from upcurve.records.store import Store

    def tell(line: str) -> None:
        click.echo(f"upcurve: {line}", err=True)

    with Store.open(store, create=False) as opened:
        done = export_site(Reader(opened), folder, tell)
    if as_json:
        click.echo(orjson.dumps({"site": str(folder), **asdict(done)}))
    else:
        tell(f"{done.files:,} files, {done.bytes / 1e6:,.1f} MB: open {folder / 'index.html'}")
