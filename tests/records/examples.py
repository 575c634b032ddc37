"""Records that several tests use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.store import Store

NOON = datetime(2026, 5, 19, 12, 30, 15, 250, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)


def run_record(**changes: Any) -> RunRecord:
    facts: dict[str, Any] = {
        "series": "may",
        "source": "sweep",
        "fingerprint": "f" * 64,
        "model": "Qwen3.5-397B-A17B",
        "hardware": "MI355X",
        "started_at": NOON,
        "recipe": {"engine": {"command": ["serve", "--tp", "{tp}"]}, "repeats": 3},
        "engine": "sglang",
        "engine_version": "0.5.12",
        "engine_commit": "abc1234",
        "image": "img@sha256:00",
        "precision": "fp8",
        "host": {"name": "node1", "logical_cores": 128},
        "gpus": [{"name": "MI355X", "memory_mib": 294912}],
        "software": {"python": "3.11.7"},
        "change": "https://example.org/pull/1",
        "harness_version": "0.1.0",
    }
    return RunRecord(**(facts | changes))


def point_record(**changes: Any) -> PointRecord:
    facts: dict[str, Any] = {
        "isl": 8192,
        "osl": 1024,
        "tp": 2,
        "gpus": 2,
        "concurrency": 4,
        "measured_at": NOON,
        "tput_per_gpu": 1267.5,
        "interactivity": 75.22,
        "tpot_ms": 13.29,
    }
    return PointRecord(**(facts | changes))


def add_run(
    store: Store,
    series: str = "nightly",
    *,
    day: int = 0,
    points: Sequence[Mapping[str, Any]] = ({},),
    **facts: Any,
) -> None:
    """Add a complete run, some days after the first of March, with what its points change."""
    when = MARCH + timedelta(days=day)
    run = store.begin_run(run_record(series=series, started_at=when, **facts))
    for each in points:
        store.add_point(run, point_record(measured_at=when, **each))
    store.end_run(run, "complete")
