"""What a person sees of a sweep: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from upcurve.accuracy.evaluation import Asked
from upcurve.accuracy.outcome import describe
from upcurve.closing import Closing
from upcurve.load.verdict import FEW_SAMPLES
from upcurve.sweep.gate import GateOutcome
from upcurve.sweep.plan import Launch
from upcurve.sweep.result import Failure, Measured
from upcurve.sweep.summary import METRICS, milliseconds, points_table
from upcurve.sweep.time_left import TimeLeft, duration

SAY_S = 10.0
"""Seconds between two lines about one evaluation."""


class PlainLines(Closing):
    """One line per event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._left = TimeLeft()
        self._last_said = time.monotonic()

    def close(self) -> None:
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
            f"TTFT {milliseconds(point.ttft_ms)}, {point.failed or 0} failed ({self._left})"
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


class LiveView(Closing):
    """A bar with the time left and a table that fills; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._left = TimeLeft()
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

    def close(self) -> None:
        """End the drawing."""
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
                milliseconds(point.ttft_ms),
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
        table = points_table("series", "round", "concurrency", *METRICS)
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


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"
