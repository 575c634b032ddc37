"""What a person sees of a sweep: a live table on a terminal, plain lines elsewhere, a summary."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from upcurve.accuracy.evaluation import Asked
from upcurve.accuracy.outcome import describe
from upcurve.load.verdict import FEW_SAMPLES
from upcurve.records.run import PointRecord
from upcurve.sweep.gate import GateOutcome
from upcurve.sweep.plan import Launch
from upcurve.sweep.runner import Failure, Measured

SAY_S = 10.0
"""Seconds between two lines about one evaluation."""


class PlainLines:
    """One line per event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._left = _TimeLeft()
        self._last_said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held open."""

    def planned(self, launches: Sequence[Launch]) -> None:
        """Say how much there is to do."""
        self._left.start(launches)
        self._say(_extent(launches))

    def launching(self, launch: Launch, run_id: str) -> None:
        """Say which engine is launched."""
        self._say(f"{_place(launch)}: launching the engine, run {run_id}")

    def ready(self, launch: Launch, seconds: float) -> None:
        """Say how long the engine took."""
        self._say(f"{_place(launch)}: ready after {seconds:.1f} s")

    def measuring(self, launch: Launch, concurrency: int) -> None:
        """Say which point is measured."""
        self._say(f"{_place(launch)}: concurrency {concurrency} ...")

    def request_ended(self, launch: Launch, ended: int, of: int) -> None:
        """Say nothing: a line per request is too much."""

    def measured(self, measured: Measured) -> None:
        """Say what the point gave."""
        self._left.done(1)
        point = measured.point
        self._say(
            f"{_place(measured.launch)}: concurrency {point.concurrency}: "
            f"{point.tput_per_gpu:.1f} tok/s/GPU, {point.interactivity:.2f} tok/s/user, "
            f"TTFT {_ms(point.ttft_ms)}, {point.failed or 0} failed ({self._left})"
        )
        for line in _warnings(measured):
            self._say(line)

    def evaluating(self, launch: Launch, concurrency: int, state: Asked) -> None:
        """Say now and then how far it is: a line a look is too much."""
        if time.monotonic() - self._last_said >= SAY_S:
            self._say(f"{_place(launch)}: accuracy at concurrency {concurrency}: {asked(state)}")

    def evaluated(self, outcome: GateOutcome) -> None:
        """Say what the gate found."""
        self._say(gate_line(outcome))

    def failed(self, failure: Failure) -> None:
        """Say what failed and what it cost."""
        self._left.done(len(failure.lost))
        self._say(_failure(failure))

    def _say(self, line: str) -> None:
        self._last_said = time.monotonic()
        self._console.print(f"upcurve: {line}", markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """A bar with the time left and a table that fills; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._left = _TimeLeft()
        self._rows: list[tuple[str, ...]] = []
        self._doing = "preparing"
        self._requests = ""
        self._spinner = Spinner("dots")
        # Standard output is left alone: it may be where JSON goes.
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def planned(self, launches: Sequence[Launch]) -> None:
        """Size the bar."""
        self._left.start(launches)
        self._live.console.print(f"upcurve: {_extent(launches)}", markup=False, highlight=False)

    def launching(self, launch: Launch, run_id: str) -> None:
        """Show which engine is launched."""
        self._doing = f"{_place(launch)}: launching the engine, run {run_id}"
        self._requests = ""

    def ready(self, launch: Launch, seconds: float) -> None:
        """Show that the engine is ready."""
        self._doing = f"{_place(launch)}: ready after {seconds:.1f} s"

    def measuring(self, launch: Launch, concurrency: int) -> None:
        """Show which point is measured."""
        self._doing = f"{_place(launch)}: measuring concurrency {concurrency}"
        self._requests = ""

    def request_ended(self, launch: Launch, ended: int, of: int) -> None:  # noqa: ARG002
        """Show how far the point is."""
        self._requests = f", {ended} of {of} requests"

    def measured(self, measured: Measured) -> None:
        """Add a row to the table."""
        self._left.done(1)
        point, launch = measured.point, measured.launch
        self._rows.append(
            (
                launch.recipe.series,
                f"{launch.round + 1}/{launch.recipe.repeats}",
                str(point.concurrency),
                f"{point.tput_per_gpu:.1f}",
                f"{point.interactivity:.2f}",
                _ms(point.ttft_ms),
                str(point.failed or 0),
            )
        )
        for line in _warnings(measured):
            text = Text(f"upcurve: {line}", style="yellow")
            self._live.console.print(text, soft_wrap=True)

    def evaluating(self, launch: Launch, concurrency: int, state: Asked) -> None:
        """Show how far the evaluation is."""
        self._doing = f"{_place(launch)}: accuracy at c{concurrency}"
        self._requests = f", {asked(state)}"

    def evaluated(self, outcome: GateOutcome) -> None:
        """Print what the gate found above the table."""
        line = Text(f"upcurve: {gate_line(outcome)}", style="green" if outcome.passed else "red")
        self._live.console.print(line, soft_wrap=True)

    def failed(self, failure: Failure) -> None:
        """Print what failed above the table."""
        self._left.done(len(failure.lost))
        line = Text(f"upcurve: {_failure(failure)}", style="red")
        self._live.console.print(line, soft_wrap=True)

    def refresh(self) -> None:
        """Draw now rather than at the next tick."""
        self._live.refresh()

    def _render(self) -> RenderableType:
        table = _table("series", "round", "concurrency", *_METRICS)
        room = max(1, self._console.height - 8)  # a table longer than the screen flickers
        for row in self._rows[-room:]:
            table.add_row(*row)
        status = Table.grid(padding=(0, 1))
        for _ in range(4):
            status.add_column(no_wrap=True)
        bar = ProgressBar(total=self._left.total, completed=self._left.finished, width=30)
        status.add_row(self._spinner, bar, str(self._left), self._doing + self._requests)
        return Group(table, status) if self._rows else status


def asked(state: Asked) -> str:
    """Return how far an evaluation is."""
    share = f"{state.ended:,} of {state.of:,} items"
    return share if state.left_s is None else f"{share}, about {duration(state.left_s)} left"


def gate_line(outcome: GateOutcome) -> str:
    """Return what a gate said of a point in one line."""
    recipe, when = outcome.launch.recipe, " (an earlier sweep)" if outcome.before else ""
    place = f"{recipe.name}, concurrency {outcome.concurrency}{when}"
    return f"accuracy: {place}: {describe(outcome.accuracy)}"


def summary(points: Sequence[Measured]) -> Table:
    """Return one row per operating point: medians over its repeats, and their spread.

    The spread is (largest - smallest) / median throughput per GPU in percent. Columns that say
    nothing (one GPU everywhere, no failure, no warning) are left out.
    """
    groups: dict[tuple[str, int, int, int], list[PointRecord]] = defaultdict(list)
    for each in points:
        point = each.point
        place = (each.launch.recipe.series, point.tp, point.gpus, point.concurrency)
        groups[place].append(point)
    order = list(dict.fromkeys(series for series, *_ in groups))
    places = sorted(groups, key=lambda place: (order.index(place[0]), *place[1:]))
    rows = [(*place, *_medians(groups[place])) for place in places]
    columns = ("series", "tp", "gpus", "concurrency", *_METRICS, "repeats", "spread", "warnings")
    silent = {"tp": "1", "gpus": "1", "failed": "0", "warnings": "0"}
    cells = [dict(zip(columns, map(str, row), strict=True)) for row in rows]
    shown = [name for name in columns if any(row[name] != silent.get(name) for row in cells)]
    table = _table(*shown)
    for row in cells:
        table.add_row(*(row[name] for name in shown))
    return table


def _medians(found: Sequence[PointRecord]) -> tuple[object, ...]:
    """Return the metrics, repeats, spread and warnings of one operating point."""
    throughput = [point.tput_per_gpu for point in found]
    middle = median(throughput)
    waits = [point.ttft_ms for point in found if point.ttft_ms is not None]
    spread = f"{100 * (max(throughput) - min(throughput)) / middle:.1f} %"
    return (
        f"{middle:.1f}",
        f"{median(point.interactivity for point in found):.2f}",
        _ms(median(waits) if waits else None),
        sum(point.failed or 0 for point in found),
        len(found),
        spread if len(found) > 1 else "-",
        sum(len(point.result.get("warnings", ())) for point in found),
    )


_METRICS = ("tok/s/GPU", "tok/s/user", "TTFT", "failed")


class _TimeLeft:
    """How many points are done, and how long the rest takes at the pace so far."""

    def __init__(self) -> None:
        self.total = 0
        self.finished = 0
        self._started = time.monotonic()

    def start(self, launches: Sequence[Launch]) -> None:
        self.total += sum(len(launch.concurrencies) + launch.at_most for launch in launches)
        if not self.finished:
            self._started = time.monotonic()

    def done(self, points: int) -> None:
        self.finished += points

    def __str__(self) -> str:
        share = f"{self.finished} of {self.total}"
        if not 0 < self.finished < self.total:
            return share
        each = (time.monotonic() - self._started) / self.finished
        return f"{share}, about {duration(each * (self.total - self.finished))} left"


def _extent(launches: Sequence[Launch]) -> str:
    skipped = sum(len(launch.skipped) for launch in launches)
    open_ended = sum(launch.at_most for launch in launches)
    if open_ended:
        known = f"; {skipped} measured already" if skipped else ""
        return f"at most {_count(open_ended, 'point')}, chosen as they are measured{known}"
    active = [launch for launch in launches if launch.concurrencies]
    points = sum(len(launch.concurrencies) for launch in active)
    text = f"{_count(points, 'point')} in {_count(len(active), 'launch', 'es')}"
    return text + (f"; {skipped} measured already" if skipped else "")


def _place(launch: Launch) -> str:
    recipe = launch.recipe
    return f"{recipe.name}, round {launch.round + 1} of {recipe.repeats}"


def _warnings(measured: Measured) -> list[str]:
    """Return what a reader of the point must know, as the load client found it."""
    place = f"{_place(measured.launch)}, concurrency {measured.point.concurrency}"
    said = measured.point.result.get("warnings", ())
    return [f"warning: {place}: {words}" for words in said if words != FEW_SAMPLES]


def _failure(failure: Failure) -> str:
    point = "" if failure.concurrency is None else f", concurrency {failure.concurrency}"
    lost = f" (not measured: {', '.join(map(str, failure.lost))})" if len(failure.lost) > 1 else ""
    return f"error: {_place(failure.launch)}{point}{lost}: {failure.problem}"


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        if column == "series":  # what gives way on a narrow terminal
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    return table


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def duration(seconds: float) -> str:
    """Return a time in words, as exact as a guess is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
