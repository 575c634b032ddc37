"""How well `upcurve ablate` finds planted effects: simulated engines, and one real server.

python benchmarks/attribution_error.py [--seeds 1000] [--rounds 5]

Simulated: every launch of a configuration has its planted throughput times a log-normal noise of
its own; every round has a drift of 3 % that all its launches share. The truth is the exact Shapley
value of the planted throughputs. Measured: `upcurve ablate` on `upcurve known-server`, whose time
per token is interval + per-stream x (requests in the making - 1), so that its throughput at an
interactivity of x is proportional to 1 + (1000 / x - interval) / per-stream.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import yaml

from upcurve.frontier.attribution import Attribution, Value, attribute
from upcurve.frontier.shapley import Configuration, Design, shapley
from upcurve.sweep.schedule import Schedule

DRIFT = 0.03
PRECISION, MAX_ROUNDS = 0.02, 10
ALONE = (0.40, 0.15, 0.03, -0.05, 0.0, 0.10)
"""Log effects of up to six switches."""
PAIRS = {(0, 1): 0.10, (2, 3): -0.04}
TRIPLE = 0.08
"""More where the first three are on together."""

INTERVAL_MS, PER_STREAM_MS = (8.0, 6.0), (1.0, 0.7)
"""Off and on."""
TARGETS = (80.0, 95.0)


def planted(on: Configuration) -> float:
    """Return log throughput; switches are called "0", "1", ..."""
    chosen = {int(name) for name in on}
    pairs = sum(effect for pair, effect in PAIRS.items() if chosen >= set(pair))
    return sum(ALONE[index] for index in chosen) + pairs + TRIPLE * (chosen >= {0, 1, 2})


def measure(schedule: Schedule, rounds: int, noise: float, chance: np.random.Generator):
    """Return values of `rounds` rounds."""
    values = {}
    for index in range(rounds):
        drift = chance.normal(0, DRIFT)
        values[index] = {
            on: Value(math.exp(planted(on) + drift + chance.normal(0, noise)))
            for on in schedule.configurations(index)
        }
    return values


def split(schedule: Schedule, values) -> Attribution:
    return attribute(
        values,
        schedule.switches,
        interactivity=40,
        design=schedule.design,
        orders=schedule.orders if schedule.design == "shapley" else None,
    )


def simulate(count: int, design: Design, noise: float, rounds: int | None, seeds: int) -> list[str]:
    """Return a row; `rounds` None follows the rule of stopping."""
    names = tuple(str(index) for index in range(count))
    everything = [frozenset(c) for k in range(count + 1) for c in combinations(names, k)]
    truth = shapley({on: planted(on) for on in everything}, names)
    errors, widths, hits, taken = [], [], [], []
    for seed in range(seeds):
        chance = np.random.default_rng([seed, count])
        schedule = Schedule(names, design, seed)
        values = measure(schedule, rounds or MAX_ROUNDS, noise, chance)
        first = rounds or 3
        while True:
            found = split(schedule, {index: values[index] for index in range(first)})
            if rounds or first == MAX_ROUNDS or found.precise(PRECISION):
                break
            first += 1
        taken.append(first)
        for share, true in zip(found.shares, truth, strict=True):
            errors.append(abs(share.log.mean - true))
            widths.append(share.log.half_width)
            hits.append(errors[-1] <= widths[-1])
    launches = np.mean(taken) * len(Schedule(names, design).configurations(0))
    return [
        f"{count}, {design}",
        f"{100 * noise:g} %",
        f"{rounds}" if rounds else f"until +-{PRECISION:g}",
        f"{np.mean(taken):.1f}",
        f"{launches:.0f}",
        f"{np.mean(errors):.4f}",
        f"{np.percentile(errors, 95):.4f}",
        f"{np.mean(widths):.4f}",
        f"{100 * np.mean(hits):.1f} %",
    ]


def table(head: list[str], rows: list[list[str]]) -> None:
    for row in [head, ["---"] + ["---:"] * (len(head) - 1), *rows]:
        print("| " + " | ".join(row) + " |", flush=True)


def served(rounds: int) -> list[list[str]]:
    """Return rows of a real ablation over HTTP against what was planted."""
    command = ["upcurve", "known-server", "--port", "{port}", "--host", "{host}"]
    flags = ["--interval-ms", str(INTERVAL_MS[0]), "--per-stream-ms", str(PER_STREAM_MS[0])]
    recipe = {
        "name": "known",
        "model": "known",
        "hardware": "CPU",
        "engine": {"name": "known-server", "command": [*command, "--first-ms", "0", *flags]},
        "workload": {"isl": 16, "osl": 32, "requests_per_stream": 4},
        "concurrency": [2, 6, 14],
    }
    switches = [
        f"flag:--interval-ms={INTERVAL_MS[1]:g}",
        f"flag:--per-stream-ms={PER_STREAM_MS[1]}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "known.yaml"
        path.write_text(yaml.safe_dump(recipe))
        command = [sys.executable, "-m", "upcurve", "ablate", str(path), "--json"]
        command += ["--switch", ",".join(switches), "--at", ",".join(map(str, TARGETS))]
        command += ["--rounds", str(rounds), "--max-rounds", str(rounds)]
        done = subprocess.run(
            [*command, "--store", f"{folder}/store"], check=True, capture_output=True, text=True
        )
    rows = []
    for target in json.loads(done.stdout)["targets"]:
        game = {
            on: math.log(
                1
                + (1000 / target["interactivity"] - INTERVAL_MS[switches[0] in on])
                / PER_STREAM_MS[switches[1] in on]
            )
            for on in (frozenset(c) for k in range(3) for c in combinations(switches, k))
        }
        for share, truth in zip(target["shares"], shapley(game, switches), strict=True):
            found = share["log_ratio"]
            low, high = found["interval"]
            rows.append(
                [
                    f"{target['interactivity']:g}, {share['switch']}",
                    f"{math.exp(truth):.4f}x",
                    f"{math.exp(found['mean']):.4f}x",
                    f"{100 * (math.exp(found['mean'] - truth) - 1):+.2f} %",
                    f"{math.exp(low):.4f} to {math.exp(high):.4f}",
                ]
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    designs: list[tuple[int, Design]] = [(3, "full"), (6, "shapley"), (2, "one")]
    rows = [
        simulate(count, design, noise, rounds, options.seeds)
        for count, design in designs
        for noise in (0.01, 0.02)
        for rounds in (3, options.rounds, None)
    ]
    head = ["switches, design", "noise", "rounds", "taken", "launches", "mean error"]
    table([*head, "95 % of errors", "mean half width", "coverage"], rows)
    print()
    table(
        ["tok/s/user, switch", "planted", "measured", "error", "95 % interval"],
        served(options.rounds),
    )


if __name__ == "__main__":
    main()
