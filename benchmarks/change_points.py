"""What `upcurve history` finds: planted steps under the published noise, build by build.

Each history is judged anew with every build that arrives, as CI would. A step counts as found where
a change point lies within two builds of it; every other change point that was the newest one at any
time is a false alarm, once.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from upcurve.frontier.changes import MINIMUM_VALUES, find_steps

NEAR = 2
"""A change point this many builds off the step is that step."""


@dataclass
class Tally:
    """Counts over all histories of one row."""

    builds: int = 0
    found: int = 0
    false_alarms: int = 0
    delays: list[int] | None = None
    covered: list[bool] | None = None


def follow(values: list[float], step: int | None, size: float, tally: Tally) -> None:
    alarms: list[int] = []
    found = None
    for count in range(MINIMUM_VALUES, len(values) + 1):
        steps = find_steps(values[:count])
        if steps is None or not steps.change_points:
            continue
        newest = steps.change_points[-1]
        if step is not None and abs(newest.index - step) <= NEAR:
            if found is None:
                found = count - step
                tally.delays.append(found)
                tally.covered.append(newest.interval[0] <= 1 + size <= newest.interval[1])
        elif not any(abs(newest.index - each) <= NEAR for each in alarms) and (
            step is None or found is None or newest.index > step + NEAR
        ):
            alarms.append(newest.index)
    tally.builds += len(values)
    tally.false_alarms += len(alarms)
    tally.found += found is not None


def row(size: float, noise: float, histories: int, seed: int) -> str:
    random = np.random.default_rng(seed)
    tally = Tally(delays=[], covered=[])
    for _ in range(histories):
        builds = int(random.integers(20, 61))
        logs = random.normal(0, noise, builds)
        step = int(random.integers(8, builds - 7)) if size else None
        if step is not None:
            logs[step:] += np.log1p(size)
        follow(list(np.exp(logs)), step, size, tally)
    alarms = f"{100 * tally.false_alarms / tally.builds:.2f}"
    if not size:
        return f"| {noise:.1%} | none | | {alarms} | | |"
    delays = tally.delays
    late = (
        f"{np.median(delays):.0f} / {np.percentile(delays, 90, method='higher'):.0f}"
        if delays
        else ""
    )
    covered = f"{np.mean(tally.covered):.0%}" if tally.covered else ""
    share = f"{tally.found / histories:.0%}"
    return f"| {noise:.1%} | {size:+.0%} | {share} | {alarms} | {late} | {covered} |"


def tails_row(freedom: float, builds: int, histories: int) -> str:
    """Return how many whole histories without a step have a change point, by the tails of noise."""
    random = np.random.default_rng(builds)
    false = 0
    for _ in range(histories):
        normal = freedom == np.inf
        noise = random.normal(size=builds) if normal else random.standard_t(freedom, builds)
        false += bool(find_steps(list(np.exp(0.01 * noise))).change_points)
    name = f"Student's t, {freedom:g} degrees of freedom" if freedom < np.inf else "normal"
    return f"| {name} | {builds} | {false / histories:.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=300, help="of each row")
    histories = parser.parse_args().histories
    print(
        "| noise | step | found | false alarms per 100 builds "
        "| builds until found, p50 / p90 | interval at that moment covers |"
    )
    print("|---:|---:|---:|---:|---:|---:|")
    for noise in (0.006, 0.023):
        for number, size in enumerate((0.0, -0.01, -0.02, -0.03, -0.05)):
            print(row(size, noise, histories, seed=number), flush=True)
    print("\n| noise | builds | whole histories with a false change point |\n|---|---:|---:|")
    for freedom in (np.inf, 8, 5):
        for builds in (30, 200, 1000):
            print(tails_row(freedom, builds, histories), flush=True)


if __name__ == "__main__":
    main()
