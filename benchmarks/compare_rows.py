"""Print time and peak memory of `upcurve compare` over 100,000 stored rows, start-up included.

Run: .venv/bin/python benchmarks/compare_rows.py [ROWS]
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.store import Store

SERIES = ("old", "new")
REPEATS = 5
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def fill(location: str, rows: int) -> None:
    """Store `rows` points: two series, five repeats of every operating point, scattered values."""
    rng = random.Random(1)  # noqa: S311
    with Store.open(location) as store:
        for name in SERIES:
            run = store.begin_run(
                RunRecord(
                    series=name,
                    source="import",
                    fingerprint=name,
                    model="made up",
                    hardware="H200",
                    started_at=DAY,
                )
            )
            store.add_points(
                run,
                (
                    PointRecord(
                        isl=8192,
                        osl=1024,
                        tp=8,
                        gpus=8,
                        concurrency=1 + index // REPEATS,
                        measured_at=DAY,
                        tput_per_gpu=rng.uniform(100, 5000),
                        interactivity=rng.uniform(5, 100),
                        repeat=index % REPEATS,
                    )
                    for index in range(rows // len(SERIES))
                ),
            )
            store.end_run(run, "complete")


def measure(location: str) -> tuple[float, float]:
    """Return wall time in s and peak resident memory in MiB of one comparison."""
    command = [sys.executable, "-m", "upcurve", "compare", *SERIES, "--at", "20,30,40"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--store", location], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        sys.exit(f"compare ended with status {status}")
    return wall, usage.ru_maxrss / 1024


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    table = Table("rows", "time, s (best of 3)", "peak memory, MiB")
    with tempfile.TemporaryDirectory() as folder:
        few, many = f"{folder}/few", f"{folder}/many"
        fill(few, 20)
        fill(many, rows)
        for count, location in ((20, few), (rows, many)):
            runs = [measure(location) for _ in range(3)]
            best, memory = min(wall for wall, _ in runs), max(peak for _, peak in runs)
            table.add_row(f"{count:,}", f"{best:.2f}", f"{memory:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
