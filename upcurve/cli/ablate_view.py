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
from upcurve.frontier.attribution_data import tidy_rows, to_dict
from upcurve.frontier.flags import flag_lines
from upcurve.frontier.rounds import common_range, doubts
from upcurve.frontier.waterfall import header, headline, legend, markdown, remarks, table
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
    flags = [
        [
            (flag, ablation.label(on), each.interactivity)
            for on, of in doubts(outcome.points, each.interactivity, rule).items()
            for flag in of
        ]
        for each in outcome.attributions
    ]
    labels = {on: ablation.label(on) for on in ablation.known()}
    reached = common_range(outcome.points)
    said = [
        line
        for each in outcome.attributions
        for line in remarks(each, labels, precision=precision, reached=reached)
    ]
    said += flag_lines(each for of in flags for each in of)
    notes = [*dict.fromkeys(said), *legend(outcome.attributions), *notes]
    if form == "json":
        printed = _json(outcome, ablation, precision, notes)
        for target, of in zip(printed["targets"], flags, strict=True):
            target["flags"] = [{"configuration": name} | flag.to_dict() for flag, name, _ in of]
        click.echo(json.dumps(printed, indent=2))
    elif form == "csv":
        words = {
            each.interactivity: [f"{flag.code}: {name}: {flag.text}" for flag, name, _ in of]
            for each, of in zip(outcome.attributions, flags, strict=True)
        }
        rows = tidy_rows(outcome.attributions, words)
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
    outcome: Outcome, ablation: Ablation, precision: float, notes: Sequence[str]
) -> dict[str, Any]:
    schedule = ablation.schedule
    return {
        "switches": list(schedule.switches),
        "design": schedule.design,
        "seed": schedule.seed,
        "rounds": outcome.rounds,
        "precision": precision,
        "configurations": [
            {
                "series": ablation.record(on).series,
                "on": [switch for switch in schedule.switches if switch in on],
                "fingerprint": ablation.record(on).fingerprint,
            }
            for on in ablation.known()
        ],
        "targets": [
            to_dict(each)
            | {
                "precise": each.precise(precision),
                "more_rounds": each.more_rounds(precision),
            }
            for each in outcome.attributions
        ],
        "notes": list(notes),
    }


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
