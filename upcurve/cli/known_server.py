"""`upcurve known-server`: a server of known timing, to hold load clients against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from upcurve.cli.options import FiniteRange, json_option
from upcurve.load.known_server.behaviour import FAULTS, Behaviour, Fault


class FaultType(click.ParamType[Fault]):
    """A fault and how often: `cut:10`; a stall also how long: `stall:10:500`."""

    name = "KIND:EVERY"

    def convert(
        self, value: str | Fault, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fault:
        """Parse the kind and the number; fail with one line where it is none."""
        if isinstance(value, Fault):
            return value
        kind, _, rest = value.partition(":")
        every, _, stall_ms = rest.partition(":")
        known = next((each for each in FAULTS if each == kind), None)
        try:
            numbers = (int(every), float(stall_ms)) if stall_ms else (int(every),)
        except ValueError:
            known, numbers = None, (1,)
        if known is None or numbers[0] < 1 or not 0 <= numbers[-1] < 1e9:
            kinds = ", ".join(FAULTS)
            self.fail(f"{value!r} is no fault; give e.g. cut:10, of {kinds}", param, ctx)
        return Fault(known, *numbers)


_MS = FiniteRange(min=0, max=1e9)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8001,
    show_default=True,
    help="0 picks a free one and prints it.",
)
@click.option(
    "--first-ms",
    type=_MS,
    default=100.0,
    show_default=True,
    metavar="MS",
    help="From a request's arrival to its first token.",
)
@click.option(
    "--interval-ms",
    type=_MS,
    default=20.0,
    show_default=True,
    metavar="MS",
    help="From one token to the next.",
)
@click.option(
    "--per-stream-ms",
    type=_MS,
    default=0.0,
    show_default=True,
    metavar="MS",
    help="More from one token to the next for each other request in the making.",
)
@click.option(
    "--jitter-ms",
    type=_MS,
    default=0.0,
    show_default=True,
    metavar="MS",
    help="Each token comes up to this earlier or later.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the jitter."
)
@click.option(
    "--tokens-per-chunk",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Tokens that are sent together.",
)
@click.option(
    "--slots",
    type=click.IntRange(min=1),
    metavar="N",
    help="Requests that are computed at once; others wait.  [default: all]",
)
@click.option(
    "--fault",
    "faults",
    type=FaultType(),
    multiple=True,
    help="What goes wrong with every n-th request; repeatable. stall:N:MS tells how long.",
)
@click.option("--model", default="known", show_default=True, metavar="NAME")
@click.option(
    "--api-key",
    envvar="UPCURVE_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="Ask clients of /v1 for this key.",
)
@click.option(
    "--certificate", type=click.Path(path_type=Path), metavar="FILE", help="PEM: speak TLS."
)
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="PEM of the certificate's key, where it is a file of its own.",
)
@click.option(
    "--truth",
    "truth_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="JSON file for what was really written and when.",
)
@json_option
def command(
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    truth_file: Path | None,
    as_json: bool,
    api_key: str | None,
    **behaviour: Any,
) -> None:
    """Serve tokens at a known pace over the OpenAI API, without a model.

    What a load client reports of this server can be held against what the server wrote, and when.
    It runs until Ctrl-C or SIGTERM, and then writes the truth.

    \b
    Example:
      upcurve known-server --first-ms 100 --interval-ms 20 --truth truth.json
      upcurve known-server --port 0 --json --slots 32 --fault http_429:50 --fault stall:20:500
    """  # noqa: D301
    from upcurve.load.known_server import (
        KnownServer,
        check_truth_file,
        serve_until_signal,
        write_truth,
    )

    def ready(base_url: str) -> None:
        if as_json:
            click.echo(json.dumps({"base_url": base_url}))
        else:
            click.echo(f"known server: {base_url} (Ctrl-C ends it)", err=True)

    if truth_file is not None:
        check_truth_file(truth_file)
    server = KnownServer(
        Behaviour(api_key=api_key or None, **behaviour),
        host=host,
        port=port,
        certificate=certificate,
        key=key,
    )
    served = serve_until_signal(server, ready)
    if truth_file is not None:
        write_truth(truth_file, served)
