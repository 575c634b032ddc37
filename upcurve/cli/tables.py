"""Tables on the terminal, as several commands print them."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from upcurve.frontier.comparison import Comparison
from upcurve.frontier.grid import grid, header


def print_table(table: Table, *, stderr: bool = False) -> None:
    """Print a table; a file or a pipe has no width, so it gets what the table needs."""
    console = Console(highlight=False, markup=False, emoji=False, stderr=stderr)
    if not console.is_terminal:
        unbounded = console.options.update(max_width=2**15)
        console.width = max(console.width, console.measure(table, options=unbounded).maximum)
    console.print(table)


def comparison_table(comparison: Comparison) -> Table:
    """Return a comparison as a table: a block of lines for each target, a column a series."""
    table = Table()
    table.add_column("tok/s/user", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for head in header(comparison):
        table.add_column(head, justify="right", overflow="fold")
    for block in grid(comparison):
        for position, line in enumerate(block):
            table.add_row("" if position else line.target, line.label, *line.texts)
        table.add_section()
    return table
