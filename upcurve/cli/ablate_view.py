"""What `upcurve ablate` prints: its plan and its outcome."""

from __future__ import annotations

import csv
import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.table import Table

from upcurve.cli.tables import print_table
from upcurve.frontier.attribution import Attribution
from upcurve.frontier.attribution_data import Doubts, Told, doubtful, tidy_rows
from upcurve.frontier.rounds import common_range
from upcurve.frontier.waterfall import all_remarks, header, headline, markdown, table
from upcurve.records.store import Store
from upcurve.sweep.ablation import Ablation, planned_round
from upcurve.sweep.ablation_rounds import Outcome


def print_outcome(
    outcome: Outcome,
    ablation: Ablation,
    notes: Sequence[str],
    form: str,
    *,
    precision: float,
    rule: str,
) -> None:
    """Print what an ablation gave, in one of the formats table, markdown, csv and json."""
    labels = {on: ablation.label(on) for on in ablation.known()}
    flags = doubtful(outcome.points, outcome.attributions, labels, rule)
    reached = common_range(outcome.points)
    said = all_remarks(outcome.attributions, labels, flags, precision=precision, reached=reached)
    notes = [*said, *notes]
    if form == "json":
        click.echo(json.dumps(_json(outcome, ablation, flags, precision, notes), indent=2))
    elif form == "csv":
        rows = tidy_rows(outcome.attributions, flags)
        if rows:
            writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        for line in notes:
            click.echo(f"upcurve: {line}", err=True)
    elif form == "markdown":
        for each in outcome.attributions:
            click.echo(markdown(each))
        click.echo("\n".join(f"- {line}" for line in notes))
    else:
        for each in outcome.attributions:
            click.echo(headline(each))
            if each.shares:
                print_table(_table(each))
        click.echo("\n".join(notes))


def _table(attribution: Attribution) -> Table:
    shown = Table()
    names = header(attribution)
    for name in names:
        left = name in (names[0], names[-1])
        shown.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in table(attribution):
        shown.add_row(*row)
    return shown


def _json(
    outcome: Outcome,
    ablation: Ablation,
    flags: Sequence[Doubts],
    precision: float,
    notes: Sequence[str],
) -> dict[str, Any]:
    schedule = ablation.schedule
    configurations = [(ablation.record(on), on) for on in ablation.known()]
    told = Told(
        outcome.attributions,
        schedule.switches,
        schedule.design,
        schedule.seed,
        outcome.rounds,
        precision,
        [(record.series, on, record.fingerprint) for record, on in configurations],
        flags,
        notes,
    )
    return told.to_dict()


def print_plan(
    ablation: Ablation, rounds: int, location: str, *, resume: bool, as_json: bool
) -> None:
    """Print every launch of the first rounds, and the command of every configuration."""
    if resume:
        with Store.open(location, create=False) as store:
            planned = [planned_round(ablation, index, store) for index in range(rounds)]
    else:
        planned = [planned_round(ablation, index, None) for index in range(rounds)]
    launches = [launch for each in planned for launch in each]
    if as_json:
        for launch in launches:
            click.echo(json.dumps(launch))
        return
    for launch in launches:
        todo = ", ".join(map(str, launch["concurrencies"])) or "nothing left"
        skipped = ", ".join(map(str, launch["skipped"]))
        known = f" (measured already: {skipped})" if skipped else ""
        place = f"round {launch['round'] + 1} of at least {rounds}: {launch['configuration']}"
        click.echo(f"{place}, concurrency {todo}{known}")
    for launch in {each["series"]: each for each in launches}.values():
        click.echo(f"\n{launch['series']}: fingerprint {launch['fingerprint']}")
        settings = [f"{name}={value}" for name, value in launch["env"].items()]
        words = (["env", *settings] if settings else []) + launch["command"]
        click.echo(f"  {shlex.join(words)}")
