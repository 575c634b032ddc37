"""Print the May over February ratio at 40 tok/s/user of the published rows under every rule.

Run: .venv/bin/python benchmarks/interpolation_rules.py
"""

from __future__ import annotations

from published_table import measured
from rich.console import Console
from rich.table import Table

from upcurve.frontier.comparison import compare
from upcurve.frontier.interpolation import RULES

TARGET = 40


def main() -> None:
    table = Table("rule", "feb tok/s/GPU", "may tok/s/GPU", "may / feb")
    points = measured()
    for rule in RULES:
        comparison = compare(
            points, baseline="feb", targets=[TARGET], usd_per_gpu_hour={}, rule=rule
        )
        at = {series.name: series.at[0] for series in comparison.series}
        figures = (at["feb"].tput_per_gpu, at["may"].tput_per_gpu, at["may"].ratio)
        table.add_row(rule, *(f"{figure:.2f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
