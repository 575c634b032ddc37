"""A comparison turned into a section of the report: chart, table and notes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from upcurve.dashboard.chart import frontier_chart
from upcurve.dashboard.report import Cell, Section, Table
from upcurve.frontier.comparison import Comparison
from upcurve.frontier.grid import grid, header
from upcurve.frontier.point import Point
from upcurve.frontier.text import ratio_text


def comparison_section(
    comparison: Comparison,
    points: Mapping[str, Sequence[Point]],
    *,
    title: str,
    headline: str,
    notes: Sequence[str],
    device: str = "GPU",
) -> Section:
    """Return the section of a comparison.

    Args:
        comparison: what is shown.
        points: every measured point by series, repeats included.
        title: of the section.
        headline: what a reader should take away, in one sentence.
        notes: lines under the table.
        device: what throughput is divided by ("GPU", "CPU").
    """
    names = ", ".join(series.name for series in comparison.series)
    return Section(
        title=title,
        headline=headline,
        chart=frontier_chart(comparison, points, device=device),
        chart_label=f"Throughput per {device} against interactivity of {names}",
        caption=f"Tokens/s per {device} at equal interactivity (tokens/s per user)",
        table=_table(comparison),
        notes=notes,
    )


def _table(comparison: Comparison) -> Table:
    """One row a target: throughput, and under it in small what the terminal shows in lines."""
    rows = []
    for block in grid(comparison):
        cells = [Cell(block[0].target)]
        for column, text in enumerate(block[0].texts):
            small = [
                f"{line.label.strip()} {line.texts[column]}"
                for line in block[1:]
                if line.texts[column]
            ]
            cells.append(Cell(text, small))
        rows.append(cells)
    return Table(["tok/s/user", *header(comparison)], rows)


def headline(comparison: Comparison, series: str) -> str:
    """Return in one sentence how far a series is ahead of the baseline, over all targets."""
    readings = next(each.at for each in comparison.series if each.name == series)
    finite = [each for each in readings if each.ratio is not None and each.ratio < math.inf]
    beyond = [each.interactivity for each in readings if each.ratio == math.inf]
    parts = []
    if finite:
        ratios = [each.ratio for each in finite if each.ratio is not None]
        low, high = finite[0].interactivity, finite[-1].interactivity
        parts.append(
            f"{series} gives {ratio_text(min(ratios))} to {ratio_text(max(ratios))} the throughput "
            f"of {comparison.baseline} at {low:g} to {high:g} tokens/s per user"
        )
    if beyond:
        parts.append(f"it reaches {beyond[-1]:g}, where {comparison.baseline} does not get")
    return (", and ".join(parts) or f"{series} and {comparison.baseline} share no target") + "."
