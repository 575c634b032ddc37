"""Print the published iso-interactivity table beside what the package computes from the same rows.

Run: .venv/bin/python benchmarks/published_table.py
"""

from __future__ import annotations

import csv
import math

from rich.console import Console
from rich.table import Table

from upcurve.frontier.comparison import compare
from upcurve.frontier.point import Point
from upcurve.records import published

SERIES = ("feb", "apr", "may")
RATIOS = {"may / feb": ("may_over_feb", "feb"), "may / apr": ("may_over_apr", "apr")}
USD_PER_GPU_HOUR = 1.48


def measured() -> dict[str, list[Point]]:
    with published.measured_file("mi355x-qwen35").open(newline="") as file:
        points: dict[str, list[Point]] = {}
        for row in csv.DictReader(file):
            points.setdefault(row["series"], []).append(
                Point(
                    float(row["interactivity"]),
                    float(row["tput_per_gpu"]),
                    int(row["tp"]),
                    int(row["gpus"]),
                    int(row["concurrency"]),
                )
            )
    return points


def error_after_rounding(value: float | None, text: str) -> float:
    if value is None or text == "unreachable":
        return 0 if value is None and text == "unreachable" else math.inf
    if math.isinf(value) and text == "inf":
        return 0
    return abs(round(value, len(text.partition(".")[2])) - float(text))


def main() -> None:
    path = published.FOLDER / "mi355x_qwen35_397b_iso_interactivity.csv"
    with path.open(newline="") as file:
        expected = list(csv.DictReader(file))
    points = measured()
    targets = [float(row["interactivity"]) for row in expected]
    found = {
        baseline: {
            series.name: series.at
            for series in compare(
                points,
                baseline=baseline,
                targets=targets,
                usd_per_gpu_hour=dict.fromkeys(points, USD_PER_GPU_HOUR),
            ).series
        }
        for baseline in ("feb", "apr")
    }
    table = Table("tok/s/user", "figure", "published", "ours", "error after rounding")
    errors = []
    for index, row in enumerate(expected):
        figures = [(name, row[name], found["feb"][name][index].tput_per_gpu) for name in SERIES]
        figures += [
            (label, row[column], found[baseline]["may"][index].ratio)
            for label, (column, baseline) in RATIOS.items()
        ]
        for label, text, value in figures:
            errors.append(error_after_rounding(value, text))
            ours = "unreachable" if value is None else f"{value:.4f}"
            table.add_row(row["interactivity"], label, text, ours, f"{errors[-1]:g}")
        table.add_section()
    Console().print(table)
    print(f"max error after rounding: {max(errors):g} over {len(errors)} figures")


if __name__ == "__main__":
    main()
