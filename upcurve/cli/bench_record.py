"""How the store keeps a bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import click

import upcurve
from upcurve.cli.bench_plan import DEFAULT_PER_STREAM, Plan
from upcurve.load.session import Result, Session
from upcurve.load.trace import to_table
from upcurve.records import environment
from upcurve.records.fingerprint import SpeedFacts, fingerprint
from upcurve.records.layout import Layout
from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.store import Store

Keep = Callable[[int, dict[str, Any], Result], None]


@contextmanager
def recording(store: str, record: RunRecord, layout: Layout) -> Iterator[Keep]:
    """Give a function that keeps a point at once; the run ends as the block does."""
    with Store.open(store) as opened:
        runs = [opened.begin_run(record)]
        empty: list[int] = []
        # Two rates may have the same requests in flight: the later one is a run of its own.
        taken: set[tuple[int, int]] = set()

        def keep(repeat: int, figures: dict[str, Any], result: Result) -> None:
            if figures["interactivity"] is None or figures["tput_per_gpu"] is None:
                empty.append(figures["concurrency"])
                click.echo(
                    f"upcurve: warning: concurrency {figures['concurrency']} gave no figures "
                    "and is not kept",
                    err=True,
                )
                return
            point = PointRecord.of_figures(
                figures, layout, repeat=repeat, measured_at=datetime.now(UTC)
            )
            if (point.concurrency, repeat) in taken:
                opened.end_run(runs[-1], "complete")
                runs.append(opened.begin_run(record))
                taken.clear()
            taken.add((point.concurrency, repeat))
            opened.add_point(runs[-1], point, to_table(result.traces), result.telemetry)

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
            opened.end_run(runs[-1], status, note)


def previous_points(
    store: str, record: RunRecord, plan: Plan
) -> dict[tuple[int, float], dict[str, Any]]:
    """Return the figures of points that the series has of this very measurement.

    The key is repeat and load: streams, or requests per second in an open loop.
    """
    with Store.open(store) as opened:
        kept = opened.results(record.fingerprint, record.series)
    key = "concurrency" if plan.arrivals is None else "rate"
    return {
        (repeat, float(figures[key])): figures
        for repeat, figures in kept
        if figures.get(key) is not None and "client" in figures
    }


def run_record(
    plan: Plan, session: Session, series: str, hardware: str, precision: str
) -> RunRecord:
    """Return what a run is recorded with; what cannot be seen of the server stays empty."""
    target = session.target
    load = {
        name: value
        for name, value in plan.load(plan.levels[0]).facts().items()
        # Levels are points of one series, as numbers of streams are.
        if name not in ("rate", "requests")
    }
    workload = {
        **plan.workload.facts(),
        **load,
        "requests": plan.amount.requests,
        "requests_per_stream": None
        if plan.arrivals or plan.amount.requests or plan.amount.duration_s
        else plan.amount.per_stream or DEFAULT_PER_STREAM,
        "fewest_requests": plan.amount.least,
        "warmup": plan.amount.warmup,
        "endpoint": target.endpoint,
        "temperature": 0,
        "ignore_eos": plan.workload.exact_output,
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
        "workload": workload | {"seed": plan.seed},
        "prompts_hash": plan.workload.content_hash(),
        "levels": list(plan.levels),
        "repeats": plan.repeats,
        "timeout_s": plan.settings.timeout_s,
        "calibration": None if session.limits is None else session.limits.facts(),
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
        software=environment.software(("upcurve", "httptools", "uvloop")),
        harness_version=upcurve.__version__,
    )
