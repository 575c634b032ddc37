"""`upcurve dashboard`: a web page over a store."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click
import orjson

from upcurve.cli.errors import needs
from upcurve.cli.options import json_option, store_option


@click.command("dashboard")
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="0 picks a free one and prints it.",
)
@click.option(
    "--token",
    envvar="UPCURVE_DASHBOARD_TOKEN",
    metavar="TEXT",
    help="What machines send that report runs (POST /v1/runs); better given as "
    "UPCURVE_DASHBOARD_TOKEN. Without, nothing can be written.",
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Name that it may be asked under, besides localhost, addresses and this machine's name; "
    "repeatable.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@json_option
def command(
    store: str,
    host: str,
    port: int,
    token: str | None,
    names: tuple[str, ...],
    opens: bool,
    as_json: bool,
) -> None:
    """Show a store as a web page, live: frontiers, comparisons, history, runs.

    It runs until Ctrl-C, needs no network and is read-only without a token. Points appear while
    a sweep runs, also one of another process that writes the same store.

    \b
    Example:
      upcurve dashboard
      upcurve dashboard --store ./results --port 9000 --open
      UPCURVE_DASHBOARD_TOKEN=... upcurve dashboard --host 0.0.0.0
    """  # noqa: D301
    with needs("dashboard"):
        from upcurve.dashboard.server import serve
    from upcurve.errors import InputError
    from upcurve.records.store import Store

    if token is not None and not token.strip():
        raise InputError("--token", "it is empty", "give a long random text, or none")

    def ready(url: str) -> None:
        if as_json:
            told = {"url": url, "store": opened.name, "writes": token is not None}
            click.echo(orjson.dumps(told))
        else:
            writes = "runs may be reported with the token" if token else "read-only"
            line = f"upcurve: dashboard of {opened.name} ({writes}): {url} (Ctrl-C ends it)"
            click.echo(line, err=True)
        if opens:
            webbrowser.open(url)

    # A store that is there may be read-only; one that is not may be waited for.
    with Store.open(store, create=not (Path(store) / "store.sqlite").is_file()) as opened:
        serve(opened, host=host, port=port, token=token, names=names, ready=ready)
