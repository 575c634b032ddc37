"""Coverage of the 95 % intervals of `upcurve compare` where the truth is known.

    python benchmarks/interval_coverage.py [--experiments 600]

A true curve of six operating points and one 1.3 times as high; each repeat of a point is the truth
times log-normal noise of its launch (shared by the points of a round), of the point, of its
requests, and of the hour (shared by the same round of both series).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from upcurve.frontier.bootstrap import draw_ratios, draw_series, interval
from upcurve.frontier.ensemble import area_ratios, read_frontiers
from upcurve.frontier.point import Facts, Point

INTERACTIVITY = np.array([80.0, 60, 42, 28, 18, 11])
THROUGHPUT = np.array([300.0, 560, 950, 1500, 2100, 2600])
TARGETS = (15.0, 25, 35, 50, 70)
FACTOR = 1.3
DRAWS = 600
UNEQUAL = (3, 5, 3, 8, 5, 3)


@dataclass(frozen=True)
class Noise:
    """Standard deviations of log interactivity and log throughput of one repeat."""

    launch: float = 0.01
    point: float = 0.01
    request: float = 0.005
    hour: float = 0.0
    apart: bool = False
    """Whether the second series has rounds of other indices: measured on another day."""


def experiment(
    chance: np.random.Generator, repeats: Sequence[int], noise: Noise
) -> dict[str, list[list[Point]]]:
    """Return the repeats of each operating point of a baseline and of a better series."""
    most = max(repeats)
    hours = chance.normal(0, noise.hour, (2 * most, 2))
    found = {}
    for name, factor in (("base", 1.0), ("own", FACTOR)):
        launches = chance.normal(0, noise.launch, (most, 2))
        first = most if noise.apart and name == "own" else 0
        groups = []
        for place, count in enumerate(repeats):
            own = chance.normal(0, noise.point, (count, 2))
            own += chance.normal(0, noise.request, (count, 2))
            logs = own + launches[:count] + hours[first : first + count]
            variance = noise.request**2
            groups.append(
                [
                    Point(
                        float(INTERACTIVITY[place] * np.exp(x)),
                        float(THROUGHPUT[place] * factor * np.exp(y)),
                        tp=1,
                        gpus=1,
                        concurrency=place,
                        repeat=first + repeat,
                        facts=Facts(request_noise=(variance, variance)),
                    )
                    for repeat, (x, y) in enumerate(logs)
                ]
            )
        found[name] = groups
    return found


def coverage(
    repeats: Sequence[int], noise: Noise, experiments: int, seed: int = 1, draws: int = DRAWS
) -> dict[str, tuple[float, float]]:
    """Return how often intervals hold the truth, and its Monte Carlo error, by what they are of."""
    chance = np.random.default_rng(seed)
    held: dict[str, list[list[bool]]] = defaultdict(list)
    true = read_frontiers(INTERACTIVITY[None], THROUGHPUT[None], np.array([TARGETS]), "published")
    for _ in range(experiments):
        series = experiment(chance, repeats, noise)
        drawn = draw_series(series, "base", draws=draws, seed=int(chance.integers(2**31)))
        base, own = drawn["base"], drawn["own"]
        targets = np.broadcast_to(TARGETS, (draws, len(TARGETS)))
        low, high = (read_frontiers(each.x, each.y, targets, "published") for each in (base, own))
        ratios = draw_ratios(high, low)
        areas, _, _ = area_ratios((own.x, own.y), (base.x, base.y), "published")
        points = [(base.x[:, p], truth) for p, truth in enumerate(INTERACTIVITY)]
        points += [(base.y[:, p], truth) for p, truth in enumerate(THROUGHPUT)]
        held["points"].append([holds(*each) for each in points])
        held["curve"].append([holds(low[:, t], true[0, t]) for t in range(len(TARGETS))])
        held["ratios"].append([holds(ratios[:, t], FACTOR) for t in range(len(TARGETS))])
        held["area"].append([holds(areas, FACTOR)])
    shares = {what: np.mean(of, axis=1) for what, of in held.items()}
    # Intervals of one experiment share their noise: the error is over experiments.
    return {
        what: (float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5))
        for what, each in shares.items()
    }


def holds(values: np.typing.NDArray[np.float64], truth: float) -> bool:
    """Whether the interval of draws is there and holds the truth."""
    found = interval(values, float(np.median(values)))
    return found is not None and found[0] <= truth <= found[1]


CELLS = {
    "launch, point and request noise": Noise(),
    "  and an hour's, shared by both": Noise(hour=0.02),
    "  and an hour's, on other days": Noise(hour=0.02, apart=True),
    "launch noise above all": Noise(launch=0.02, point=0.002, request=0.001),
    "request noise alone": Noise(launch=0, point=0, request=0.02),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=600)
    experiments = parser.parse_args().experiments
    print("| noise | repeats | points | curve | ratios | area |")
    print("|---|---|---:|---:|---:|---:|")
    for label, noise in CELLS.items():
        for repeats in ((3,) * 6, (5,) * 6, (8,) * 6, UNEQUAL):
            found = coverage(repeats, noise, experiments)
            shown = str(repeats[0]) if len(set(repeats)) == 1 else ", ".join(map(str, repeats))
            cells = [f"{100 * share:.1f} +- {100 * error:.1f}" for share, error in found.values()]
            print(f"| {label.strip()} | {shown} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
