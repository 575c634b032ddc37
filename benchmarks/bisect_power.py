"""How often a bisect is right and how many runs it takes, against fixed numbers of runs.

Simulated measurements with known truth: 12 commits, one of them moves the metric, at a place drawn
anew in each search. The fixed design is told the effect and the noise of the second row ahead: it
has the smallest numbers of runs (of good and bad each, and of every other revision) with which it
names the right commit in as large a share of searches as the sequential one does there.

python benchmarks/bisect_power.py [--seeds 1000]
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass

from scipy.stats import ttest_ind

from upcurve.frontier.sequential import Estimate
from upcurve.sweep.bisection import Calibration, Decision, bisect

COMMITS, ERROR, MAX_RUNS = 12, 0.05, 30
CASES = [(0.02, 0.02), (0.03, 0.02), (0.05, 0.02), (0.10, 0.02), (0.03, 0.005), (0.0, 0.02)]
"""Size of the regression and noise of one measurement."""


class Silent:
    """Who watches and says nothing."""

    def calibrated(self, calibration: Calibration) -> None:
        """Take no notice."""

    def decided(self, decision: Decision) -> None:
        """Take no notice."""

    def drifted(self, estimate: Estimate) -> None:
        """Take no notice."""


class Engine:
    """Measurements of commits, one of which is slower by `effect`, with `noise`."""

    def __init__(self, seed: int, effect: float, noise: float) -> None:
        self._random = random.Random(f"{seed}")  # noqa: S311 - a simulation
        self.culprit = self._random.randint(1, COMMITS)
        self.step, self._noise = math.log(1 - effect), noise

    def measure(self, position: int) -> float:
        """Return one more measurement of a commit."""
        step = self.step if position >= self.culprit else 0.0
        return math.exp(step + self._random.gauss(0, self._noise))


@dataclass
class Tally:
    """How searches ended, their runs, and how often the interval held the truth."""

    right: int = 0
    wrong: int = 0
    range: int = 0
    equal: int = 0
    runs: int = 0
    covered: int = 0


def sequential(seeds: int, effect: float, noise: float) -> Tally:
    tally = Tally()
    for seed in range(seeds):
        engine = Engine(seed, effect, noise)
        answer = bisect(COMMITS, engine.measure, error=ERROR, max_runs=MAX_RUNS, watcher=Silent())
        tally.runs += answer.runs
        if not answer.calibration.differs:
            tally.equal += 1
        elif not (effect and answer.last_good < engine.culprit <= answer.first_bad):
            tally.wrong += 1
        elif answer.found:
            tally.right += 1
            tally.covered += answer.move.low <= engine.step <= answer.move.high
        else:
            tally.range += 1
    return tally


def fixed(seeds: int, effect: float, noise: float, ends: int, each: int) -> Tally:
    """Measure good and bad `ends` times, a t test, then every revision `each` times."""
    tally = Tally()
    for seed in range(seeds):
        engine = Engine(seed, effect, noise)
        good, bad = ([math.log(engine.measure(at)) for _ in range(ends)] for at in (0, COMMITS))
        tally.runs += 2 * ends
        if ttest_ind(good, bad).pvalue > ERROR:
            tally.equal += 1
            continue
        low, high, middle = 0, COMMITS, (sum(good) + sum(bad)) / (2 * ends)
        while high - low > 1:
            position = (low + high) // 2
            mean = sum(math.log(engine.measure(position)) for _ in range(each)) / each
            tally.runs += each
            is_bad = (mean > middle) == (sum(bad) > sum(good))
            low, high = (low, position) if is_bad else (position, high)
        if effect and high == engine.culprit:
            tally.right += 1
        else:
            tally.wrong += 1
    return tally


def smallest(seeds: int, effect: float, noise: float, share: float) -> tuple[int, int]:
    """Return the numbers of runs of the cheapest fixed design that is right often enough."""
    decisions = math.ceil(math.log2(COMMITS))
    designs = sorted(
        (2 * ends + decisions * each, ends, each)
        for ends in range(4, MAX_RUNS + 1)
        for each in range(1, MAX_RUNS + 1)
    )
    for _, ends, each in designs:
        if ends < each or fixed(100, effect, noise, ends, each).right < 100 * (share - 0.03):
            continue  # not worth more seeds
        if fixed(seeds, effect, noise, ends, each).right >= share * seeds:
            return ends, each
    raise SystemExit("no fixed design is right so often")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    seeds = parser.parse_args().seeds
    target = sequential(seeds, *CASES[1]).right / seeds
    ends, each = smallest(seeds, *CASES[1], target)
    print(
        f"{seeds} searches a row; fixed: {ends} runs of good and bad each, {each} of the others\n"
    )
    print(
        "| regression | noise | right | wrong | range | no difference | runs | interval covers "
        "| fixed: right | wrong | no difference | runs |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for effect, noise in CASES:
        ours, theirs = sequential(seeds, effect, noise), fixed(seeds, effect, noise, ends, each)
        shares = [f"{n / seeds:.1%}" for n in (ours.right, ours.wrong, ours.range, ours.equal)]
        covered = f"{ours.covered / ours.right:.1%}" if ours.right else "-"
        others = [f"{n / seeds:.1%}" for n in (theirs.right, theirs.wrong, theirs.equal)]
        cells = [f"{effect:.0%}", f"{noise:.1%}", *shares, f"{ours.runs / seeds:.1f}", covered]
        cells += [*others, f"{theirs.runs / seeds:.1f}"]
        print(f"| {' | '.join(cells)} |".replace("%", " %"))


if __name__ == "__main__":
    main()
