"""What a bench measures, and how the store keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import click
import pyarrow

import upcurve
from upcurve.load.target import Target
from upcurve.load.workload import Workload
from upcurve.records import environment
from upcurve.records.fingerprint import SpeedFacts, fingerprint
from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.store import Store


@dataclass(frozen=True, slots=True)
class Grid:
    """What is measured: the workload at each concurrency, repeated."""

    workload: Workload
    concurrency: list[int]
    repeats: int
    requests: int | None
    """Measured requests of a point; None: `requests_per_stream` times its concurrency."""
    requests_per_stream: int
    warmup: int | None
    timeout_s: float

    def points(self) -> Iterator[tuple[int, int]]:
        """Yield (repeat, concurrency); repeats interleave, so that a drift hits all alike."""
        for repeat in range(self.repeats):
            for concurrency in self.concurrency:
                yield repeat, concurrency

    def requests_at(self, concurrency: int) -> int:
        """Return the measured requests of a point."""
        return self.requests or self.requests_per_stream * concurrency

    def warmup_at(self, concurrency: int) -> int:
        """Return the warm-up requests of a point: at least one per stream."""
        return max(self.warmup or 0, concurrency)


Keep = Callable[[int, dict[str, Any], pyarrow.Table], None]


@contextmanager
def recording(store: str, record: RunRecord, tp: int, gpus: int) -> Iterator[Keep]:
    """Give a function that keeps a point at once; the run ends as the block does."""
    with Store.open(store) as opened:
        run_id = opened.begin_run(record)
        empty: list[int] = []

        def keep(repeat: int, figures: dict[str, Any], trace: pyarrow.Table) -> None:
            if figures["interactivity"] is None or figures["tput_per_gpu"] is None:
                empty.append(figures["concurrency"])
                click.echo(
                    f"upcurve: warning: concurrency {figures['concurrency']} gave no figures "
                    "and is not kept",
                    err=True,
                )
                return
            point = PointRecord.of_figures(
                figures, tp=tp, gpus=gpus, repeat=repeat, measured_at=datetime.now(UTC)
            )
            opened.add_point(run_id, point, trace)

        status: Literal["complete", "interrupted", "failed"] = "interrupted"
        note: str | None = "stopped by the user"
        try:
            yield keep
            status = "failed" if empty else "complete"
            note = f"no figures at concurrency {', '.join(map(str, empty))}" if empty else None
        except Exception as error:
            status, note = "failed", str(error)
            raise
        finally:
            opened.end_run(run_id, status, note)


def run_record(grid: Grid, target: Target, series: str, hardware: str, precision: str) -> RunRecord:
    """Return what a run is recorded with; what cannot be seen of the server stays empty."""
    workload = {
        "isl": grid.workload.isl,
        "osl": grid.workload.osl,
        "lengths": "exact",
        "prompts": "random token ids, all distinct",
        "vocabulary": list(grid.workload.vocabulary),
        "requests": grid.requests,
        "requests_per_stream": None if grid.requests else grid.requests_per_stream,
        "warmup": grid.warmup,
        "temperature": 0,
        "ignore_eos": True,
    }
    facts = SpeedFacts(
        engine="",
        engine_version="",
        engine_commit="",
        image="",
        command=[],
        environment={},
        model=target.model,
        model_files={},
        precision=precision,
        workload=workload,
        hardware=hardware,
        software={},
        harness_version=upcurve.__version__,
    )
    asked = {
        "base_url": target.base_url,
        "workload": workload | {"seed": grid.workload.seed},
        "prompts_hash": grid.workload.content_hash(),
        "concurrency": grid.concurrency,
        "repeats": grid.repeats,
        "timeout_s": grid.timeout_s,
    }
    return RunRecord(
        series=series,
        source="bench",
        fingerprint=fingerprint(facts),
        model=target.model,
        hardware=hardware,
        started_at=datetime.now(UTC),
        recipe=asked,
        precision=precision,
        # The client's machine: the server's cannot be seen from here.
        host=environment.host(),
        software=environment.software(("upcurve", "aiohttp", "uvloop")),
        harness_version=upcurve.__version__,
    )
