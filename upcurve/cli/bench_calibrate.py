"""`upcurve bench --calibrate`: what this client can carry on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table

from upcurve.cli.tables import print_table
from upcurve.errors import InputError
from upcurve.load.calibration import calibrate
from upcurve.load.limits import TRUSTED_SHARE, Limits, default_path


def calibrate_here(workers: int | None, *, as_json: bool) -> int:
    """Measure, keep and show the limits.

    Raises:
        InputError: they cannot be kept.
    """
    path = default_path()
    click.echo("measuring against a server of known timing; leave the machine alone", err=True)
    limits = calibrate(workers, told=_say)
    try:
        limits.save(path)
    except OSError as error:
        problem = f"{path} cannot be written ({error.strerror})"
        raise InputError("UPCURVE_CALIBRATION", problem, "name a file that can") from error
    if as_json:
        click.echo(json.dumps(asdict(limits)))
    else:
        _print(limits)
        click.echo(f"kept in {path}", err=True)
    return 0


def _say(row: dict[str, Any]) -> None:
    verdict = "kept" if row["strain"] <= 1 else "not kept"
    click.echo(
        f"{row['streams']} streams: TTFT {row['ttft_ms']:.2f} ms, true {row['true_ttft_ms']:.2f}; "
        f"{row['in_server']:.1f} in the server; bars {verdict}",
        err=True,
    )


def _print(limits: Limits) -> None:
    table = Table(
        caption=f"true times up to {limits.chunks_per_s:,.0f} chunks/s and {limits.streams} "
        f"streams; points are trusted up to {TRUSTED_SHARE:.0%} of that rate"
    )
    heads = ["streams", "TTFT\nms", "true", "TPOT\nms", "true", "in the\nserver", "chunks\n/s"]
    for head in [*heads, "CPU us\n/chunk", "lag p99\nms", "memory\nMB", "bars"]:
        table.add_column(head, justify="right", no_wrap=True)
    for row in limits.rows:
        table.add_row(
            str(row["streams"]),
            f"{row['ttft_ms']:.2f}",
            f"{row['true_ttft_ms']:.2f}",
            f"{row['tpot_ms']:.3f}",
            f"{row['true_tpot_ms']:.3f}",
            f"{row['in_server']:.1f}",
            f"{row['chunks_per_s']:,.0f}",
            f"{row['cpu_us_per_chunk']:.1f}",
            f"{row['lag_p99_ms']:.1f}",
            f"{row['memory_mb']:.0f}",
            "kept" if row["strain"] <= 1 else "broken",
        )
    print_table(table)
