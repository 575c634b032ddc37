"""A store of 5,000 series and 200,000 points, made up: what the dashboard's figures are taken on.

40 groups (10 models x 4 workloads), 5 GPUs and 25 nightly builds each, 8 concurrencies x 5 repeats.
Curves are smooth, builds gain 1 % each with a step here and there, repeats scatter by 1 %.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.store import Store

WORKLOADS = [(1024, 1024), (8192, 1024), (1024, 8192), (32768, 512)]
HARDWARE = ["H100", "H200", "B200", "MI300X", "MI355X"]
CONCURRENCIES = [1, 2, 4, 8, 16, 32, 64, 128]
FIRST_DAY = datetime(2026, 1, 1, 3, tzinfo=UTC)


def make(folder: Path, *, models: int = 10, builds: int = 25, repeats: int = 5) -> Store:
    """Make the store in a new folder and return it open."""
    store = Store.open(folder)
    chance = np.random.default_rng(0)
    for model in range(models):
        for workload in WORKLOADS:
            runs = list(_group(f"Model-{model:02}", workload, builds, repeats, chance))
            store.add_finished_runs(runs, note="made up")
    return store


def _group(
    model: str, workload: tuple[int, int], builds: int, repeats: int, chance: np.random.Generator
) -> Iterator[tuple[str, RunRecord, list[PointRecord]]]:
    isl, osl = workload
    for place, hardware in enumerate(HARDWARE):
        speed = 60 * (1 + place) ** 0.5
        for build in range(builds):
            speed *= 1.01 + 0.15 * (chance.random() < 0.03)
            day = FIRST_DAY + timedelta(days=build)
            name = f"{model.lower()}-{isl}-{osl}-{hardware.lower()}-{day:%Y-%m-%d}"
            run = RunRecord(
                series=name,
                source="sweep",
                fingerprint=hashlib.sha256(name.encode()).hexdigest(),
                model=model,
                hardware=hardware,
                started_at=day,
                recipe={"name": f"{model}-{hardware}", "engine": {"command": ["serve", "--x"]}},
                engine="sglang",
                engine_version=f"0.5.{build}",
                precision="fp8",
                host={"name": "bench-1"},
            )
            points = [
                _point(isl, osl, concurrency, repeat, speed, day, chance)
                for concurrency in CONCURRENCIES
                for repeat in range(repeats)
            ]
            yield f"{name}-run", run, points


def _point(
    isl: int,
    osl: int,
    concurrency: int,
    repeat: int,
    speed: float,
    day: datetime,
    chance: np.random.Generator,
) -> PointRecord:
    noise = 1 + 0.01 * chance.standard_normal(2)
    interactivity = speed / (1 + concurrency / 24) * noise[0]
    output = interactivity * concurrency * 0.9 * noise[1]
    total = output * (isl + osl) / osl
    ttft = 50 + 8 * concurrency
    e2e = ttft + 1000 * osl / interactivity
    spread = {"mean": e2e, "p50": e2e, "p90": 1.1 * e2e, "p99": 1.2 * e2e}
    return PointRecord(
        isl=isl,
        osl=osl,
        tp=1,
        gpus=1,
        concurrency=concurrency,
        repeat=repeat,
        measured_at=day + timedelta(minutes=10 * repeat),
        tput_per_gpu=total,
        interactivity=interactivity,
        input_tput_per_gpu=total - output,
        output_tput_per_gpu=output,
        tpot_ms=1000 / interactivity,
        ttft_ms=ttft,
        requests=10 * concurrency + 64,
        failed=0,
        result={"e2e_ms": spread, "ttft_ms": spread, "tpot_ms": spread, "itl_ms": spread},
    )
