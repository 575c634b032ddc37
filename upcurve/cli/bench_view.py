"""What a person sees of a bench: a live line with the time left, a table, words."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from upcurve.cli.bench_plan import Plan
from upcurve.cli.tables import print_table
from upcurve.closing import Closing
from upcurve.load.client import Progress as State

_REFRESHES_PER_S = 2  # each refresh is time that another process does not have


class View(Closing):
    """The live view, on stderr."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            refresh_per_second=_REFRESHES_PER_S,
            disable=not self._console.is_terminal,
            transient=True,
        )
        known = plan.search is None
        total = float(len(plan.levels) * plan.repeats) if known else None
        self._task = self._bar.add_task("", total=total, state="")
        self._points = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def close(self) -> None:
        """Take the live line away."""
        self._bar.stop()

    def say(self, words: str) -> None:
        """Print a line above the live one."""
        self._console.print(words, soft_wrap=True)

    def begin(self, level: float, repeat: int) -> None:
        """Show which point is measured."""
        self._bar.update(self._task, description=self._plan.label(level, repeat), state="")

    def watch(self, state: State) -> None:
        """Show how far it is; warm-up counts as a fifth of a point."""
        if state.requests:
            done = state.ended / state.requests
        else:
            done = min(1.0, state.elapsed_s / state.duration_s) if state.duration_s else 0.0
        done = 0.2 * done if state.phase == "warm-up" else 0.2 + 0.8 * done
        in_flight = state.sent - state.ended
        failed = f", {state.failed} failed" if state.failed else ""
        words = f"{state.phase}: {state.ended} ended, {in_flight} in flight{failed}"
        self._bar.update(self._task, completed=self._points + done, state=words)

    def end(self, level: float, repeat: int, figures: dict[str, Any]) -> None:
        """Say what a point gave."""
        self._points += 1
        self._bar.update(self._task, completed=self._points, state="")
        self.say(f"{self._plan.label(level, repeat)}: {_in_brief(figures)}")


def print_points(plan: Plan, found: Sequence[tuple[int, float, dict[str, Any]]]) -> None:
    """Print the table of all points on stdout."""
    open_loop = plan.arrivals is not None
    since = "since they were due" if open_loop else "since they were sent"
    table = Table(
        caption=f"latencies: medians, {since}; steady: without ramp-up and drain; "
        "*: not to be trusted, see below"
    )
    columns: dict[str, Callable[[dict[str, Any]], Any]] = {
        "tok/s\n/GPU": lambda point: point["tput_per_gpu"],
        "steady\n/GPU": lambda point: (point["steady_state"] or {}).get("tput_per_gpu"),
        "tok/s\n/user": lambda point: point["interactivity"],
        "TTFT\nms": lambda point: point["ttft_ms"]["p50"],
        "TTFT\np99": lambda point: point["ttft_ms"]["p99"],
        "TPOT\nms": lambda point: point["tpot_ms"]["p50"],
        "E2E\nms": lambda point: point["e2e_ms"]["p50"],
    }
    if plan.settings.goal is not None:
        columns["goodput\nreq/s"] = lambda point: point["goodput"]["requests_per_s"]
    if any((each["power"] or {}).get("totals") for _, _, each in found):
        columns["J\n/token"] = _joules
    first = "requests\nper s" if open_loop else "requests\nin flight"
    heads = [first, *(["repeat"] if plan.repeats > 1 else []), *columns]
    for head in [*heads, "requests\nin all", "failed"]:
        table.add_column(head, justify="right", no_wrap=True)
    shown = sorted(found, key=lambda each: each[1]) if plan.search else found
    for repeat, level, point in shown:
        mark = "" if point["client"]["trusted"] else "*"
        cells = [f"{level:g}{mark}", *([str(repeat + 1)] if plan.repeats > 1 else [])]
        cells += [number(value(point)) for value in columns.values()]
        table.add_row(*cells, str(point["requests"]), str(point["failed"]))
    print_table(table)


def print_warnings(plan: Plan, found: Sequence[tuple[int, float, dict[str, Any]]]) -> None:
    """Say on stderr what a reader must know: each thing once, with the points that it is of."""
    points: dict[str, list[str]] = {}
    for repeat, level, figures in found:
        for words in figures["warnings"]:
            points.setdefault(words, []).append(plan.label(level, repeat))
    for words, labels in points.items():
        where = "all points" if 1 < len(labels) == len(found) else "; ".join(labels)
        click.echo(f"upcurve: warning: {where}: {words}", err=True)


def print_search(plan: Plan, answer: float | None, *, as_json: bool) -> None:
    """Say which load was found; as JSON after the points."""
    unit = "streams" if plan.arrivals is None else "requests/s"
    if as_json:
        click.echo(json.dumps({"search": {"answer": answer, "unit": unit}}))
    elif answer is None:
        click.echo(f"no load from {plan.levels[0]:g} {unit} up keeps the limits")
    else:
        click.echo(f"highest load within the limits: {answer:.4g} {unit}")


def number(value: float | None) -> str:
    """Return a number as tables show it."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _joules(point: dict[str, Any]) -> float | None:
    totals = (point["power"] or {}).get("totals") or {}
    return totals.get("joules_per_output_token") if totals.get("energy_valid") else None


def _in_brief(point: dict[str, Any]) -> str:
    failed = f", {point['failed']} of {point['requests']} failed" if point["failed"] else ""
    return (
        f"{number(point['tput_per_gpu'])} tok/s/GPU, "
        f"{number(point['interactivity'])} tok/s/user, "
        f"TTFT {number(point['ttft_ms']['p50'])} ms in {point['duration_s']:.1f} s{failed}"
    )
