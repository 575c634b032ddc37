"""What `upcurve eval` shows: how far it is, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from upcurve.accuracy.evaluation import Asked
from upcurve.accuracy.scoring import METRICS
from upcurve.sweep.view import SAY_S, asked


class AskedView:
    """A bar with the time left on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, concurrency: int) -> None:
        self._console = console
        self._what = f"concurrency {concurrency}"
        self._said = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not console.is_terminal,
        )
        self._row = self._bar.add_task(self._what, total=None, left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def watch(self, state: Asked) -> None:
        """Show how far an evaluation is."""
        if self._console.is_terminal:
            words = asked(state).partition(", ")[2]
            self._bar.update(self._row, total=state.of, completed=state.ended, left=words)
        elif time.monotonic() - self._said >= SAY_S:
            self._said = time.monotonic()
            line = f"upcurve: {self._what}: {asked(state)}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def eval_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row for each concurrency; columns that say nothing are left out."""
    words = {True: "passed", False: "FAILED", None: "-"}
    rows = []
    for each in found:
        low, high = each["interval"]
        tokens = each["prompt_tokens_mean"]
        scores = {str(metric): f"{each['scores'][metric]:.4f}" for metric in METRICS}
        cells = {
            "concurrency": str(each["concurrency"]),
            "items": f"{each['n']:,}",
            **scores,
            f"95 % of {each['metric']}": f"{low:.4f} to {high:.4f}",
            "no answer": str(each["failed"]),
            "cut off": str(each["truncated"]),
            "input": "-" if tokens is None else f"{tokens:,.0f}",
            "gate": words[each["passed"]],
        }
        rows.append(cells)
    silent = {"no answer": "0", "cut off": "0", "input": "-", "gate": "-"}
    shown = [name for name in rows[0] if any(row[name] != silent.get(name) for row in rows)]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    return table
