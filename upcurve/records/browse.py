"""What a reader of a whole store asks: runs and workloads in short, figures of points."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from upcurve.frontier.point import Point
from upcurve.records.layout import LAYOUT
from upcurve.records.measurements import watts_per_gpu
from upcurve.records.queries import IDS
from upcurve.records.reader import StoreReader
from upcurve.records.run import Source, Status
from upcurve.records.schema import points, runs


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run without what is large."""

    id: str
    series: str
    source: Source
    status: Status
    note: str | None
    model: str
    hardware: str
    precision: str
    engine: str
    engine_version: str
    engine_commit: str
    image: str
    fingerprint: str
    started_at: datetime
    ended_at: datetime | None
    change: str | None
    engine_source: str = ""
    """Hash of the own engine's source; empty for other engines."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How much a run measured of one workload."""

    run: str
    isl: int
    osl: int
    points: int
    first: datetime
    last: datetime
    checked: int
    """Points with an accuracy."""
    failed: int
    """Of them, points whose check did not pass."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One measured point with what charts are drawn from; None where it was not recorded."""

    point: Point
    """Its repeat counted over all runs of its fingerprint, as `StoreReader.points` does."""
    run: str
    isl: int
    osl: int
    fingerprint: str
    measured_at: datetime
    input_tput_per_gpu: float | None
    output_tput_per_gpu: float | None
    ttft_ms: float | None
    tpot_ms: float | None
    requests: int | None
    failed: int | None
    trace: str | None
    accuracy: dict[str, Any] | None = field(repr=False)
    e2e_ms: float | None
    """Median end-to-end latency."""
    watts_per_gpu: float | None


def store_version(store: StoreReader) -> str:
    """Return a text that changes whenever the content of a store may have changed."""
    highest = sa.select(sa.func.max(points.c.id))
    with store.reading() as connection:
        parts: list[Any] = [connection.scalar(highest)]
        if connection.dialect.name == "sqlite":
            parts += _sqlite_state(store.root / "store.sqlite")
        else:
            running = sa.func.count().filter(runs.c.status == "running")
            of_runs = [sa.func.count(), sa.func.max(runs.c.started_at), running]
            of_runs.append(sa.func.max(runs.c.ended_at))
            parts += connection.execute(sa.select(*of_runs)).one()
            parts.append(connection.scalar(sa.select(sa.func.count(points.c.accuracy))))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _sqlite_state(file: Path) -> Iterator[Any]:
    """Yield what changes with every transaction: sizes, times, the header of the log's index.

    The index (https://www.sqlite.org/walformat.html, section 2.2) counts transactions, which two
    writes within one tick of the file system's clock need.
    """
    for path in (file, file.with_name(f"{file.name}-wal")):
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        yield from (path.name, state.st_ino, state.st_mtime_ns, state.st_size)
    try:
        with file.with_name(f"{file.name}-shm").open("rb") as index:
            yield index.read(48)
    except OSError:
        return


def run_summaries(store: StoreReader) -> list[RunSummary]:
    """Return every run, oldest first."""
    names = [each for each in RunSummary.__dataclass_fields__ if each != "engine_source"]
    source = runs.c.software["upcurve_engine_source"].as_string()
    query = sa.select(*(runs.c[name] for name in names), source)
    with store.reading() as connection:
        rows = connection.execute(query.order_by(runs.c.started_at, runs.c.id))
        return [
            RunSummary(**dict(zip(names, row, strict=False)), engine_source=row[-1] or "")
            for row in rows
        ]


def measured(store: StoreReader, after: int = 0) -> tuple[list[Measured], int]:
    """Return what runs measured in points of ids above `after`, and the highest id there is."""
    passed = points.c.accuracy["passed"].as_boolean()
    query = (
        sa.select(
            *points.c["run_id", "isl", "osl"],
            sa.func.count(),
            sa.func.min(points.c.measured_at),
            sa.func.max(points.c.measured_at),
            sa.func.count(points.c.accuracy),
            sa.func.count().filter(points.c.accuracy.is_not(None), passed.is_(False)),
        )
        .where(points.c.id > after)
        .group_by(*points.c["run_id", "isl", "osl"])
    )
    with store.reading() as connection:
        highest = connection.scalar(sa.select(sa.func.max(points.c.id))) or 0
        rows = connection.execute(query.where(points.c.id <= highest))
        return [Measured(*tuple(row)) for row in rows], highest


_PLAIN = ["interactivity", "tput_per_gpu", *LAYOUT, "concurrency", "repeat", "id"]
_FURTHER = [
    "run_id", "measured_at", "input_tput_per_gpu", "output_tput_per_gpu", "ttft_ms", "tpot_ms",
    "requests", "failed", "trace", "accuracy",
]  # fmt: skip
_PLACE_OF_ID = _PLAIN.index("id")
_PLACE_OF_PLACE = len(_PLAIN) + len(_FURTHER)
_PLACE_OF_TIME = len(_PLAIN) + _FURTHER.index("measured_at")


@dataclass(frozen=True, slots=True)
class RunDetails:
    """What is large of a run."""

    recipe: dict[str, Any]
    host: dict[str, Any]
    gpus: list[dict[str, Any]]
    software: dict[str, Any]
    harness_version: str


def run_details(store: StoreReader, run_id: str) -> RunDetails | None:
    """Return what is large of a run; None where there is none of this id."""
    query = sa.select(*runs.c["recipe", "host", "devices", "software", "harness_version"])
    with store.reading() as connection:
        row = connection.execute(query.where(runs.c.id == run_id)).one_or_none()
    return RunDetails(*row) if row else None


def ablation_recipes(store: StoreReader) -> list[tuple[str, dict[str, Any]]]:
    """Return id and recipe of every run of an ablation, oldest first."""
    design = runs.c.recipe[("ablation", "design")].as_string()
    query = sa.select(*runs.c["id", "recipe"]).where(design.is_not(None))
    with store.reading() as connection:
        rows = connection.execute(query.order_by(runs.c.started_at, runs.c.id))
        return [(row.id, row.recipe) for row in rows]


def run_of_point(store: StoreReader, point_id: int) -> str | None:
    """Return the id of a point's run; None where there is no such point."""
    query = sa.select(points.c.run_id).where(points.c.id == point_id)
    with store.reading() as connection:
        return connection.scalar(query)


def highest_point(store: StoreReader) -> int:
    """Return the highest id of a point; 0 where there is none."""
    with store.reading() as connection:
        return connection.scalar(sa.select(sa.func.max(points.c.id))) or 0


def added(store: StoreReader, after: int, most: int) -> list[tuple[int, str]]:
    """Return id and run of points above an id, newest last, at most so many of the newest."""
    query = sa.select(*points.c["id", "run_id"]).where(points.c.id > after)
    with store.reading() as connection:
        rows = connection.execute(query.order_by(points.c.id.desc()).limit(most))
        return [(row.id, row.run_id) for row in rows][::-1]


def figures(
    store: StoreReader,
    run_ids: Sequence[str],
    isl: int | None = None,
    osl: int | None = None,
    *,
    detailed: bool = False,
) -> list[Figures]:
    """Return the points of runs, in the order of their measurement.

    Args:
        store: where they are.
        run_ids: of the runs of one series, or of one run.
        isl: input length to choose.
        osl: output length to choose.
        detailed: whether end-to-end latency and power are looked up: they are in a larger record.
    """
    found: list[Any] = []
    with store.reading() as connection:
        for start in range(0, len(run_ids), IDS):
            query = _query(detailed).where(points.c.run_id.in_(run_ids[start : start + IDS]))
            if isl is not None:
                query = query.where(points.c.isl == isl)
            if osl is not None:
                query = query.where(points.c.osl == osl)
            found += connection.execute(query)
    found.sort(key=itemgetter(_PLACE_OF_TIME, _PLACE_OF_ID))
    return list(_numbered(found))


def _query(detailed: bool) -> sa.Select[Any]:
    result: sa.ColumnElement[Any] = points.c.result
    place = [*points.c["isl", "osl"], runs.c.fingerprint]
    query = sa.select(*(points.c[name] for name in [*_PLAIN, *_FURTHER]), *place)
    if detailed:
        totals = result[("power", "totals")].label("totals")
        query = query.add_columns(result[("e2e_ms", "p50")].as_float().label("e2e"), totals)
    return query.join_from(points, runs)


def _numbered(rows: Sequence[Any]) -> Iterator[Figures]:
    taken: dict[Any, set[int]] = defaultdict(set)
    for row in rows:
        figures, place = row[:_PLACE_OF_PLACE], row[_PLACE_OF_PLACE:]
        speed, tput, *layout, concurrency, repeat, key = figures[: len(_PLAIN)]
        further = figures[len(_PLAIN) :]
        isl, osl, fingerprint, *larger = place
        run, at, of_input, of_output, ttft, tpot, requests, failed, trace, accuracy = further
        used = taken[*layout, concurrency, isl, osl, fingerprint]
        if repeat in used:
            repeat = max(used) + 1
        used.add(repeat)
        e2e, totals = larger or (None, None)
        power = {"result": {"power": {"totals": totals}}, "output_tput_per_gpu": of_output}
        yield Figures(
            point=Point(
                *(speed, tput),
                concurrency=concurrency,
                repeat=repeat,
                id=key,
                **dict(zip(LAYOUT, layout, strict=True)),
            ),
            run=run,
            isl=isl,
            osl=osl,
            fingerprint=fingerprint,
            measured_at=at,
            input_tput_per_gpu=of_input,
            output_tput_per_gpu=of_output,
            ttft_ms=ttft,
            tpot_ms=tpot,
            requests=requests,
            failed=failed,
            trace=trace,
            accuracy=accuracy,
            e2e_ms=e2e,
            watts_per_gpu=watts_per_gpu(power) if totals else None,
        )
