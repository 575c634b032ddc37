"""Print the error at a target of sweeps that choose their points, beside fixed doubling lists.

The truth is a smooth curve through recorded points: the published rows of each series and TP, and
this project's own of one H200. Step time and concurrency / throughput are monotone cubics of the
concurrency, straight lines below the lowest recorded one. A run adds independent normal noise to
the logarithm of each axis.

Run: .venv/bin/python benchmarks/adaptive_sweeps.py
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from upcurve.frontier.adaptive import choose, estimate, is_precise
from upcurve.frontier.goal import Goal, Target
from upcurve.frontier.point import Point
from upcurve.records.published import MEASURED, measured_file

OWN = Path(__file__).parent / "results" / "qwen35-35b-h200-2026-11-23.json"
NOISES = (0.006, 0.023)
SEEDS = 4
PLACES = (0.15, 0.4, 0.6, 0.85)
"""Of each curve's range of interactivity, logarithmic: where its targets lie."""
BUDGETS = (3, 4, 6, 9, 12, 18, 27)


class Truth:
    """A smooth curve through recorded (concurrency, interactivity, throughput per GPU)."""

    def __init__(self, rows: list[tuple[int, float, float]]) -> None:
        rows = sorted(rows)
        at = np.array([row[0] for row in rows], dtype=float)
        times = {
            "interactivity": np.array([1 / row[1] for row in rows]),
            "tput_per_gpu": np.array([row[0] / row[2] for row in rows]),
        }
        self.highest = int(at[-1])
        self._first = at[0]
        self._curves = {name: PchipInterpolator(at, values) for name, values in times.items()}

    def _time(self, axis: str, c: float) -> float:
        curve = self._curves[axis]
        below = min(0.0, c - self._first)
        return float(curve(max(c, self._first)) + below * curve(self._first, 1))

    def interactivity(self, c: float) -> float:
        """Return tok/s/user at a concurrency."""
        return 1 / self._time("interactivity", c)

    def throughput(self, c: float) -> float:
        """Return tok/s/GPU at a concurrency."""
        return c / self._time("tput_per_gpu", c)

    def at(self, interactivity: float) -> float:
        """Return tok/s/GPU at an interactivity; concurrency need not be whole."""
        c = brentq(lambda c: self.interactivity(c) - interactivity, 1, self.highest)
        return self.throughput(float(c))

    def targets(self) -> list[float]:
        """Return the interactivities that sweeps are asked for."""
        low, high = (math.log(self.interactivity(c)) for c in (self.highest, 1))
        return [math.exp(low + (high - low) * place) for place in PLACES]

    def measure(self, c: int, repeat: int, noise: float, draws: random.Random) -> Point:
        """Return one noisy measurement."""
        speed = self.interactivity(c) * math.exp(draws.gauss(0, noise))
        return Point(speed, self.throughput(c) * math.exp(draws.gauss(0, noise)), 1, 1, c, repeat)


def recorded() -> dict[str, Truth]:
    rows: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    found = [row for name in MEASURED for row in csv.DictReader(measured_file(name).open())]
    for row in [*found, *json.loads(OWN.read_text())]:
        figures = (int(row["concurrency"]), float(row["interactivity"]), float(row["tput_per_gpu"]))
        rows[f"{row['series']} TP{row['tp']}"].append(figures)
    return {name: Truth(of) for name, of in rows.items()}


def fixed(truth: Truth, rounds: int, noise: float, draws: random.Random) -> list[Point]:
    grid = [2**power for power in range(truth.highest.bit_length())]
    return [truth.measure(c, index, noise, draws) for index in range(rounds) for c in grid]


def adaptive(truth: Truth, goal: Goal, noise: float, draws: random.Random) -> list[Point]:
    points: list[Point] = []
    for index in range(goal.rounds):
        while (c := choose(points, goal, index)) is not None:
            points.append(truth.measure(c, index, noise, draws))
    return points


def error(truth: Truth, target: float, points: list[Point], goal: Goal) -> float:
    """Return the relative error of the value at the target; infinite where there is none."""
    value = estimate(points, goal.targets[0], goal).value
    return math.inf if value is None else abs(value / truth.at(target) - 1)


def main() -> None:
    truths = recorded()
    sweeps: list[tuple[str, int | None, int]] = [("doubling list", None, n) for n in (1, 2, 3, 5)]
    sweeps += [("chosen", budget, 5) for budget in BUDGETS]
    sweeps += [("chosen, 1 round", 27, 1), ("chosen, until 2 %", 60, 12)]
    columns = ("noise", "sweep", "at most", "runs", "median error", "p90 error", "within 2 %")
    table = Table(*columns, "says precise", "of these within 2 %")
    for noise in NOISES:
        for name, budget, rounds in sweeps:
            errors, runs, precise = [], [], []
            for curve, truth in truths.items():
                for target in truth.targets():
                    goal = Goal(
                        (Target("interactivity", target),), 0.02, truth.highest, budget or 1, rounds
                    )
                    for seed in range(SEEDS):
                        draws = random.Random(f"{curve} {target} {noise} {seed}")  # noqa: S311 - noise
                        if budget is None:
                            points = fixed(truth, rounds, noise, draws)
                        else:
                            points = adaptive(truth, goal, noise, draws)
                        errors.append(error(truth, target, points, goal))
                        runs.append(len(points))
                        said = estimate(points, goal.targets[0], goal)
                        precise.append(budget is not None and is_precise(said, goal))
            within = [each <= 0.02 for each in errors]
            kept = [good for good, claimed in zip(within, precise, strict=True) if claimed]
            table.add_row(
                f"{100 * noise:.1f} %",
                f"{name}, {rounds} rounds" if budget is None else name,
                str(budget or "-"),
                f"{np.mean(runs):.1f}",
                *(
                    f"{100 * np.quantile(errors, share, method='lower'):.2f} %"
                    for share in (0.5, 0.9)
                ),
                f"{100 * np.mean(within):.0f} %",
                "-" if budget is None else f"{100 * np.mean(precise):.0f} %",
                f"{100 * np.mean(kept):.0f} %" if kept else "-",
            )
    Console(width=140).print(f"{len(truths)} curves, {len(PLACES)} targets, {SEEDS} seeds", table)


if __name__ == "__main__":
    main()
