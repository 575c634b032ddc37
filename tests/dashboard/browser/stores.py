"""Stores that the page is looked at with: written through the store itself, as commands do."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow

from tests.records.examples import point_record, run_record
from upcurve.load.trace import RequestTrace, counts, times, to_table
from upcurve.records.store import Store

START = datetime(2026, 6, 1, 9, tzinfo=UTC)
MS = 1_000_000

HOSTILE = "<img src=x onerror=alert(1)>"
HOSTILE_SERIES = "\"'><script>alert(2)</script>&amp; =cmd|' /C calc'!A0"
HOSTILE_LINK = "javascript:alert(3)"

NIGHTLIES = 12
STEP = 7
"""From this nightly on throughput is 12 % higher."""


def rich(path: Path, builds: int = NIGHTLIES) -> None:
    """Write nightly builds with repeats, a planted step, accuracy, requests and a log."""
    draw = random.Random(7)
    with Store.open(path) as store:
        for build in range(builds):
            _nightly(store, build, draw)
        _failed(store)


def hostile(path: Path) -> None:
    """Write a run whose every text is markup."""
    with Store.open(path) as store:
        run = run_record(
            **dict.fromkeys(["model", "hardware", "engine", "engine_version", "image"], HOSTILE),
            series=HOSTILE_SERIES,
            precision=HOSTILE,
            engine_commit=HOSTILE,
            change=HOSTILE_LINK,
            recipe={"name": HOSTILE, HOSTILE: HOSTILE},
            host={HOSTILE: HOSTILE},
            gpus=[{"name": HOSTILE}],
            software={HOSTILE: HOSTILE},
            harness_version=HOSTILE,
        )
        run_id = store.begin_run(run)
        for place, concurrency in enumerate([4, 8, 16]):
            accuracy = {"task": HOSTILE, "score": 0.5, "n": 10, "passed": False, "note": HOSTILE}
            point = point_record(
                concurrency=concurrency,
                interactivity=80.0 - 20 * place,
                tpot_ms=1000 / (80.0 - 20 * place),
                tput_per_gpu=1000.0 + 500 * place,
                accuracy=accuracy,
            )
            store.add_point(run_id, point, _requests(4, 50.0, failure=HOSTILE))
        store.log_path(run_id).write_text(f"{HOSTILE}\n</pre><script>alert(4)</script>\n")
        store.end_run(run_id, "failed", HOSTILE)


def _nightly(store: Store, build: int, draw: random.Random) -> None:
    day = START + timedelta(days=build)
    version = f"0.6.{build}"
    gain = 1.12 if build >= STEP else 1.0
    for repeat in range(3):
        run = run_record(
            series=f"nightly-{day:%Y-%m-%d}",
            fingerprint=f"{build:064x}",
            model="Qwen3.5-35B-A3B",
            hardware="H200",
            engine="upcurve",
            engine_version=version,
            engine_commit=f"{build:07x}",
            image="",
            started_at=day,
            change=f"https://github.com/example/engine/pull/{100 + build}",
            gpus=[{"name": "NVIDIA H200", "memory_mib": 143771}],
        )
        run_id = store.begin_run(run)
        for place, concurrency in enumerate([4, 16, 64]):
            noise = draw.gauss(1, 0.006)
            speed = [90.0, 60.0, 30.0][place] * draw.gauss(1, 0.004)
            tput = [900.0, 2400.0, 4800.0][place] * gain * noise
            passed = not (build == 3 and concurrency == 64)
            point = point_record(
                tp=1,
                gpus=1,
                concurrency=concurrency,
                repeat=repeat,
                measured_at=day + timedelta(minutes=10 * repeat + place),
                tput_per_gpu=tput,
                input_tput_per_gpu=tput * 8 / 9,
                output_tput_per_gpu=tput / 9,
                interactivity=speed,
                tpot_ms=1000 / speed,
                ttft_ms=120.0 * (1 + place),
                requests=8 * concurrency,
                failed=0,
                accuracy=_score(passed) if repeat == 0 else None,
                result=_figures(speed, tput, 120.0 * (1 + place)),
            )
            trace = _requests(24, 1000 / speed) if repeat == 0 and concurrency == 16 else None
            store.add_point(run_id, point, trace)
        store.log_path(run_id).write_text(f"upcurve {version}: ready on port 8000\n")
        store.end_run(run_id, "complete")


def _figures(speed: float, tput: float, first: float) -> dict[str, Any]:
    return {
        "e2e_ms": {"p50": first + 1023 * 1000 / speed},
        "ttft_ms": {"p50": first},
        "output_length_ok": True,
        "client": {"saturated": False},
    }


def _score(passed: bool) -> dict[str, Any]:
    score = 0.955 if passed else 0.902
    return {"task": "gsm8k", "score": score, "n": 1319, "passed": passed, "threshold": 0.94}


def _failed(store: Store) -> None:
    run = run_record(series="broken", model="Qwen3.5-35B-A3B", hardware="H200", started_at=START)
    store.end_run(store.begin_run(run), "failed", "the engine ended with 1: out of memory")


def _requests(number: int, tpot_ms: float, failure: str | None = None) -> pyarrow.Table:
    """Return a trace of four streams, each sending as its slot becomes free."""
    free = [0.0] * 4
    found = []
    for index in range(number):
        stream = index % 4
        due = free[stream]
        sent, first = due + 1.5, due + 1.5 + 120 + 10 * stream
        stamps = [first + tpot_ms * token for token in range(8)]
        free[stream] = stamps[-1] + 2
        lost = failure is not None and index == number - 1
        found.append(
            RequestTrace(
                stream=stream,
                warm_up=index < 4,
                scheduled_ns=int(due * MS),
                sent_ns=int(sent * MS),
                ended_ns=int(free[stream] * MS),
                index=index,
                first_byte_ns=int(first * MS),
                first_content_ns=int(first * MS),
                first_answer_ns=int(first * MS),
                last_ns=int(stamps[-1] * MS),
                chunk_ns=times(int(each * MS) for each in stamps),
                chunk_tokens=counts([1] * 8),
                input_tokens=8192,
                requested_tokens=8,
                output_tokens=8,
                finish_reason="length",
                failure="error_event" if lost else None,
                detail=failure if lost else None,
            )
        )
    return to_table(found)
