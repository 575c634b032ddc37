"""Time and memory of 100,000 rows: imported, exported and compared, each by its own command.

    python benchmarks/compare_rows.py [--rows 100000]

Each command runs in a process of its own; time is wall time, memory the process's peak.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SERIES = 5
HEADER = (
    "series,measured_on,hardware,engine,engine_version,image,model,precision,isl,osl,tp,gpus,"
    "concurrency,tput_per_gpu,interactivity,tpot_ms,ttft_ms,node\n"
)


def write_rows(path: Path, count: int) -> None:
    """Write rows of five series over a month of days, as a nightly run would leave them."""
    chance = np.random.default_rng(1)
    with path.open("w") as file:
        file.write(HEADER)
        for number in range(count):
            tp, concurrency = 2 ** chance.integers(0, 4), 2 ** chance.integers(0, 9)
            speed = (100 + number % SERIES) / (1 + concurrency / 8 / tp) * chance.normal(1, 0.01)
            file.write(
                f"s{number % SERIES},2026-05-{1 + number // SERIES % 28:02},MI355X,sglang,0.5.12,,"
                f"Qwen3.5-397B-A17B,fp8,8192,1024,{tp},{tp},{concurrency},"
                f"{speed * concurrency * 9 / tp:.2f},{speed:.3f},{1000 / speed:.4f},"
                f"{chance.uniform(200, 900):.1f},node{number % 64}\n"
            )


def measured(command: list[str]) -> tuple[float, float]:
    """Run a command and return its wall time in s and its peak memory in MiB."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    count = parser.parse_args().rows
    upcurve = [sys.executable, "-m", "upcurve"]
    with tempfile.TemporaryDirectory() as name:
        file, store = Path(name) / "rows.csv", ["--store", str(Path(name) / "results")]
        write_rows(file, count)
        series = [f"s{number}" for number in range(SERIES)]
        stages = {
            "import": [*upcurve, "import", str(file), *store],
            "import again": [*upcurve, "import", str(file), *store],
            "compare": [*upcurve, "compare", *series, "--at", "20,40,60,80", "--json", *store],
            "export": [*upcurve, "export", *store],
        }
        print(f"{count} rows, {file.stat().st_size / 2**20:.1f} MiB of CSV, {SERIES} series")
        print(f"{'stage':<14}{'time, s':>10}{'peak, MiB':>12}")
        for stage, command in stages.items():
            seconds, mebibytes = measured(command)
            print(f"{stage:<14}{seconds:>10.2f}{mebibytes:>12.0f}")


if __name__ == "__main__":
    main()
