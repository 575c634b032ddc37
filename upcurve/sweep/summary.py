"""A sweep's points as a table: medians over repeats."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.table import Table

from upcurve.frontier.point import Place
from upcurve.records.facts import as_point
from upcurve.records.run import PointRecord
from upcurve.sweep.result import Measured

METRICS = ("tok/s/GPU", "tok/s/user", "TTFT", "failed")
"""What every table of points shows."""


def summary(points: Sequence[Measured]) -> Table:
    """Return one row per operating point: medians over its repeats, and their spread.

    The spread is (largest - smallest) / median throughput per GPU in percent. Columns that say
    nothing (one GPU everywhere, no failure, no warning) are left out.
    """
    groups: dict[tuple[str, Place], list[PointRecord]] = defaultdict(list)
    for each in points:
        groups[each.launch.recipe.series, as_point(each.point).place].append(each.point)
    order = list(dict.fromkeys(series for series, *_ in groups))
    places = sorted(groups, key=lambda place: (order.index(place[0]), place[1]))
    rows = [(series, *place, *_medians(groups[series, place])) for series, place in places]
    sizes = ("tp", "ep", "dp", "gpus", "prefill GPUs", "concurrency")
    columns = ("series", *sizes, *METRICS, "repeats", "spread", "warnings")
    silent = dict.fromkeys(("tp", "ep", "dp", "gpus"), "1")
    silent |= dict.fromkeys(("prefill GPUs", "failed", "warnings"), "0")
    cells = [dict(zip(columns, map(str, row), strict=True)) for row in rows]
    shown = [name for name in columns if any(row[name] != silent.get(name) for row in cells)]
    table = points_table(*shown)
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
        milliseconds(median(waits) if waits else None),
        sum(point.failed or 0 for point in found),
        len(found),
        spread if len(found) > 1 else "-",
        sum(len(point.result.get("warnings", ())) for point in found),
    )


def points_table(*columns: str) -> Table:
    """Return an empty table of points."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        if column == "series":  # what gives way on a narrow terminal
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    return table


def milliseconds(value: float | None) -> str:
    """Return a time as text, a dash for none."""
    return "-" if value is None else f"{value:.1f} ms"
