"""What the store is asked: plain queries that give tuples and values, never objects with a life."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import date
from typing import Any

import sqlalchemy as sa

from upcurve.errors import InputError
from upcurve.frontier.point import Facts, Point
from upcurve.records import process
from upcurve.records.layout import LAYOUT
from upcurve.records.run import PointRecord, RunRecord, SeriesSummary
from upcurve.records.schema import points, runs

CHUNK = 5_000
"""Rows per round trip: enough for speed, few enough for memory."""

IDS = 500
"""Ids per query: SQLite may be built for no more than 999 variables."""

_RECIPE = runs.c.recipe["name"].as_string()

OperatingPoint = tuple[int, int, int, int, int, int, int, int, int]
"""(*`Layout.sizes`, concurrency, isl, osl, repeat)."""

EXPORTED: list[sa.ColumnElement[Any]] = [
    runs.c.series,
    points.c.measured_at.label("measured_on"),
    *runs.c["hardware", "engine", "engine_version", "image", "model", "precision"],
    *points.c["isl", "osl", *LAYOUT],
    *points.c["concurrency", "repeat"],
    *points.c["tput_per_gpu", "interactivity", "input_tput_per_gpu", "output_tput_per_gpu"],
    *points.c["tpot_ms", "ttft_ms", "requests", "failed"],
    runs.c.id.label("run"),
    *runs.c["source", "fingerprint", "started_at", "engine_commit", "change", "harness_version"],
    *runs.c["recipe", "host", "devices", "software"],
    *points.c["accuracy", "result"],
]
"""Columns of a flat row, in the order of the export."""


def dead_runs(connection: sa.Connection) -> list[str]:
    """Return the ids of runs that are marked running, and whose process is gone."""
    query = sa.select(runs.c.id, runs.c.process).where(runs.c.status == "running")
    return [row.id for row in connection.execute(query) if process.is_dead(row.process)]


def completed(connection: sa.Connection, fingerprint: str, series: str) -> set[OperatingPoint]:
    """Return what was measured under a fingerprint and a series name."""
    query = (
        sa.select(
            *points.c["tp", "ep", "dp", "gpus"],
            sa.func.coalesce(points.c.prefill_gpus, 0),
            *points.c["concurrency", "isl", "osl", "repeat"],
        )
        .join_from(points, runs)
        .where(runs.c.fingerprint == fingerprint, runs.c.series == series)
    )
    rows: Any = connection.execute(query)
    return {(tp, ep, dp, n, apart, c, i, o, r) for tp, ep, dp, n, apart, c, i, o, r in rows}


def results(
    connection: sa.Connection, fingerprint: str, series: str
) -> list[tuple[int, dict[str, Any]]]:
    """Return repeat and figures of all that was measured under a fingerprint and a series name."""
    query = (
        sa.select(points.c.repeat, points.c.result)
        .join_from(points, runs)
        .where(runs.c.fingerprint == fingerprint, runs.c.series == series)
        .order_by(points.c.measured_at)
    )
    return [(row.repeat, row.result) for row in connection.execute(query)]


def names(connection: sa.Connection) -> list[str]:
    """Return the names of all series, in alphabetical order."""
    return list(connection.scalars(sa.select(runs.c.series).distinct().order_by(runs.c.series)))


def series(connection: sa.Connection) -> list[SeriesSummary]:
    """Return one summary per series, in the order of their first measurement."""
    per_run = (
        sa.select(
            points.c.run_id,
            sa.func.count().label("points"),
            sa.func.min(points.c.measured_at).label("first"),
            sa.func.max(points.c.measured_at).label("last"),
        )
        .group_by(points.c.run_id)
        .subquery()
    )
    of_run = [*runs.c["series", "model", "hardware", "fingerprint"]]
    of_points = [*per_run.c["points", "first", "last"]]
    by_name = defaultdict(list)
    for row in connection.execute(sa.select(*of_run, *of_points).outerjoin_from(runs, per_run)):
        by_name[row.series].append(row)
    workloads: dict[str, set[tuple[int, int]]] = defaultdict(set)
    query = sa.select(runs.c.series, points.c.isl, points.c.osl).join_from(runs, points).distinct()
    for name, isl, osl in connection.execute(query):
        workloads[name].add((isl, osl))
    summaries = [_summary(name, of, workloads[name]) for name, of in by_name.items()]
    return sorted(summaries, key=lambda each: (each.first_measured_on or date.max, each.name))


def _summary(name: str, of: Sequence[Any], workloads: set[tuple[int, int]]) -> SeriesSummary:
    first = [row.first for row in of if row.first]
    last = [row.last for row in of if row.last]
    return SeriesSummary(
        name=name,
        models=tuple(sorted({row.model for row in of})),
        hardware=tuple(sorted({row.hardware for row in of})),
        workloads=frozenset(workloads),
        runs=len(of),
        points=sum(row.points or 0 for row in of),
        fingerprints=frozenset(row.fingerprint for row in of),
        first_measured_on=min(first).date() if first else None,
        last_measured_on=max(last).date() if last else None,
    )


def fingerprints(
    connection: sa.Connection, name: str, isl: int | None, osl: int | None
) -> frozenset[str]:
    """Return the fingerprints of the runs that have points of a series and workload."""
    query = sa.select(runs.c.fingerprint).join_from(runs, points).distinct()
    return frozenset(connection.scalars(_of_workload(query, name, isl, osl)))


def points_of(
    connection: sa.Connection, name: str, isl: int | None, osl: int | None
) -> list[Point]:
    """Return the points of a series in the order of their measurement, repeats renumbered."""
    metrics = points.c["interactivity", "tput_per_gpu", *LAYOUT, "concurrency", "repeat"]
    place = [*points.c["isl", "osl"], runs.c.fingerprint]
    query = sa.select(points.c.id, *metrics, *place).join_from(points, runs)
    query = _of_workload(query, name, isl, osl).order_by(points.c.measured_at, points.c.id)
    taken: dict[Any, set[int]] = defaultdict(set)
    found = []
    for key, speed, tput, *layout, concurrency, repeat, i, o, print_ in connection.execute(query):
        used = taken[*layout, concurrency, i, o, print_]
        if repeat in used:
            repeat = max(used) + 1
        used.add(repeat)
        sizes = dict(zip(LAYOUT, layout, strict=True))
        found.append(Point(speed, tput, concurrency=concurrency, repeat=repeat, id=key, **sizes))
    return found


def latest_points(connection: sa.Connection, name: str) -> dict[int, tuple[int, int]]:
    """Return concurrency -> (id, isl) of the point of a series that was measured last there."""
    query = (
        sa.select(*points.c["concurrency", "id", "isl"])
        .join_from(points, runs)
        .where(runs.c.series == name)
        .order_by(points.c.measured_at, points.c.id)
    )
    return {concurrency: (key, isl) for concurrency, key, isl in connection.execute(query)}


def facts(connection: sa.Connection, ids: Sequence[int]) -> dict[int, tuple[Facts, str | None]]:
    """Return what a reader must know of points, and where their traces are kept, by id."""
    result, found = points.c.result, {}
    query = sa.select(
        *points.c["id", "requests", "failed", "accuracy", "trace"],
        result[("client", "saturated")].as_boolean().label("saturated"),
        result["output_length_ok"].as_boolean().label("length_ok"),
    )
    for start in range(0, len(ids), IDS):
        chunk = query.where(points.c.id.in_(ids[start : start + IDS]))
        for row in connection.execute(chunk):
            passed = (row.accuracy or {}).get("passed")
            known = Facts(row.requests, row.failed, row.saturated, row.length_ok, passed)
            found[row.id] = known, row.trace
    return found


def repeated_figures(
    connection: sa.Connection, name: str, isl: int, osl: int
) -> list[list[tuple[float, float]]]:
    """Return (interactivity, throughput) of all operating points measured more than once.

    Counted are runs of the recipes, model, hardware and workload of a series, under any series
    name; what was measured under one fingerprint is one group.
    """
    own = sa.select(runs.c.model, runs.c.hardware, _RECIPE.label("recipe")).where(
        runs.c.series == name, _RECIPE.is_not(None)
    )
    alike = own.distinct().subquery()
    place = [runs.c.fingerprint, *points.c[*LAYOUT, "concurrency"]]
    query = (
        sa.select(*place, points.c.interactivity, points.c.tput_per_gpu)
        .join_from(points, runs)
        .join(
            alike,
            sa.and_(
                runs.c.model == alike.c.model,
                runs.c.hardware == alike.c.hardware,
                alike.c.recipe == _RECIPE,
            ),
        )
        .where(points.c.isl == isl, points.c.osl == osl)
    )
    groups: dict[Any, list[tuple[float, float]]] = defaultdict(list)
    for *key, interactivity, tput in connection.execute(query):
        groups[tuple(key)].append((interactivity, tput))
    return [group for group in groups.values() if len(group) > 1]


def _of_workload(
    query: sa.Select[Any], name: str, isl: int | None, osl: int | None
) -> sa.Select[Any]:
    query = query.where(runs.c.series == name)
    if isl is not None:
        query = query.where(points.c.isl == isl)
    if osl is not None:
        query = query.where(points.c.osl == osl)
    return query


def has_run(connection: sa.Connection, run_id: str) -> bool:
    """Whether there is a run of this id."""
    return connection.scalar(sa.select(sa.literal(1)).where(runs.c.id == run_id)) is not None


def find_run(connection: sa.Connection, run_id: str) -> tuple[RunRecord, list[PointRecord]] | None:
    """Return a run with its points; None where there is none of this id."""
    of_run = ["devices" if each.name == "gpus" else each.name for each in fields(RunRecord)]
    run = connection.execute(
        sa.select(*(runs.c[name] for name in of_run)).where(runs.c.id == run_id)
    )
    row = run.one_or_none()
    if row is None:
        return None
    of_point = [points.c[each.name] for each in fields(PointRecord)]
    query = sa.select(*of_point).where(points.c.run_id == run_id).order_by(points.c.id)
    return RunRecord(**_named(RunRecord, row)), [
        PointRecord(**_named(PointRecord, each)) for each in connection.execute(query)
    ]


def _named(kind: type[RunRecord | PointRecord], row: sa.Row[Any]) -> dict[str, Any]:
    return dict(zip((each.name for each in fields(kind)), row, strict=True))


def rows(connection: sa.Connection, names: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """Yield one flat dict per point, run by run."""
    query = (
        sa.select(*EXPORTED)
        .join_from(points, runs)
        .order_by(runs.c.started_at, runs.c.id, points.c.id)
    )
    if names:
        query = query.where(runs.c.series.in_(names))
    streamed = connection.execution_options(yield_per=CHUNK).execute(query)
    columns = [str(column.name) for column in query.selected_columns]
    for row in streamed:
        yield dict(zip(columns, row, strict=True))


def trace_path(connection: sa.Connection, point_id: int) -> str:
    """Return where the trace of a point is kept, below the store's folder.

    Raises:
        InputError: there is no such point, or it has no trace.
    """
    row = connection.execute(sa.select(points.c.trace).where(points.c.id == point_id)).one_or_none()
    if row is None or row.trace is None:
        problem = "there is no such point" if row is None else "it was stored without a trace"
        raise InputError(f"point {point_id}", problem, "see the view 'measurements' for others")
    return str(row.trace)
