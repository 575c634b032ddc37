"""The store: where runs, points, traces and logs are kept."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import pyarrow
import pyarrow.parquet
import sqlalchemy as sa

from upcurve.errors import InputError
from upcurve.frontier.point import Point
from upcurve.records import database, folder, process
from upcurve.records.run import PointRecord, RunRecord, SeriesSummary
from upcurve.records.schema import points, runs

CHUNK = 5_000
"""Rows per statement: enough for speed, few enough for memory."""

OperatingPoint = tuple[int, int, int, int, int, int]
"""(tp, gpus, concurrency, isl, osl, repeat)."""


class Store:
    """Runs, points, traces and logs, in a folder or in PostgreSQL with a folder for the files.

    Several processes may write at once. A point is visible whole or not at all.
    """

    def __init__(self, name: str, engine: sa.Engine, root: Path) -> None:
        self._name = name
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._root = root

    @classmethod
    def open(cls, location: str | Path, *, create: bool = True) -> Store:
        """Open a store, bring its tables up to date and mark the runs of dead processes.

        Args:
            location: a folder, or a postgresql:// URL; then the environment variable
                UPCURVE_TRACES names the folder of traces and logs.
            create: whether a missing store is created.

        Raises:
            InputError: the store is missing, unreadable, unreachable or of a newer upcurve.
        """
        text = str(location)
        if text.startswith(("postgresql:", "postgres:", "postgresql+")):
            traces = os.environ.get("UPCURVE_TRACES")
            if not traces:
                raise InputError(
                    "UPCURVE_TRACES",
                    "a PostgreSQL store keeps its traces in a folder, and none is named",
                    "set UPCURVE_TRACES to a folder that every writer reaches",
                )
            root = Path(traces)
            engine = database.postgresql_engine(text)
            name = engine.url.render_as_string(hide_password=True)
        elif "://" in text:
            raise InputError(
                "store",
                f"{text.split('://', 1)[0]}:// is no kind of store",
                "name a folder or a postgresql:// URL",
            )
        else:
            root, name = Path(location), text
            file = root / "store.sqlite"
            if not create and not file.is_file():
                raise InputError(
                    "store", f"there is none in {name}", "run upcurve import or upcurve sweep first"
                )
            with database.errors_in_words(name):
                root.mkdir(parents=True, exist_ok=True)
            engine = database.sqlite_engine(file)
        store = cls(name, engine, root)
        with store._errors():
            database.bring_up_to_date(engine, name)
            store._mark_interrupted()
        return store

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Writing

    def begin_run(self, run: RunRecord) -> str:
        """Record the start of a run and return its id; `end_run` must follow."""
        run_id = f"{run.started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        values = _run_values(run) | {
            "id": run_id,
            "status": "running",
            "process": process.this_process(),
        }
        with self._errors(), self._writer.begin() as connection:
            connection.execute(runs.insert(), values)
        return run_id

    def add_point(self, run_id: str, point: PointRecord, trace: pyarrow.Table | None = None) -> int:
        """Add one point, with the trace of its requests, to a run and return the point's id.

        Raises:
            InputError: the run has this point already, there is no such run, or the disk refuses.
        """
        path: Path | None = None
        try:
            with self._errors():
                if trace is not None:
                    stem = (
                        f"tp{point.tp}-gpus{point.gpus}-c{point.concurrency}"
                        f"-{point.isl}x{point.osl}-r{point.repeat}"
                    )
                    path = folder.write_trace(folder.trace_folder(self._root, run_id), stem, trace)
                values = _point_values(run_id, point) | {
                    "trace": path and str(path.relative_to(self._root))
                }
                with self._writer.begin() as connection:
                    added = points.insert().values(values).returning(points.c.id)
                    return int(connection.execute(added).scalar_one())
        except BaseException as error:
            if path is not None:
                path.unlink(missing_ok=True)
            if isinstance(error, sa.exc.IntegrityError):
                raise _refused(run_id, error) from error
            raise

    def add_points(self, run_id: str, records: Iterable[PointRecord]) -> None:
        """Add many points without traces to a run: all of them or none."""
        try:
            with self._errors(), self._writer.begin() as connection:
                _insert_points(connection, run_id, records)
        except sa.exc.IntegrityError as error:
            raise _refused(run_id, error) from error

    def add_finished_runs(
        self, finished: Iterable[tuple[str, RunRecord, Iterable[PointRecord]]]
    ) -> None:
        """Add whole runs, each with its id and points, in one transaction: all of them or none."""
        try:
            with self._errors(), self._writer.begin() as connection:
                for run_id, run, records in finished:
                    values = {"id": run_id, "status": "complete", "ended_at": run.started_at}
                    connection.execute(runs.insert(), _run_values(run) | values)
                    _insert_points(connection, run_id, records)
        except sa.exc.IntegrityError as error:
            raise _refused("import", error) from error

    def end_run(
        self,
        run_id: str,
        status: Literal["complete", "interrupted", "failed"],
        note: str | None = None,
    ) -> None:
        """Record the end of a run."""
        ended = (
            runs.update()
            .where(runs.c.id == run_id)
            .values(status=status, note=note, ended_at=datetime.now(UTC), process=None)
        )
        with self._errors(), self._writer.begin() as connection:
            if connection.execute(ended).rowcount != 1:
                raise InputError("run", f"the store has none named {run_id}", "begin it first")

    def log_path(self, run_id: str) -> Path:
        """Return the file that takes the server's log of a run; its folder exists."""
        with self._errors():
            return folder.log_file(self._root, run_id)

    def _mark_interrupted(self) -> None:
        """Mark runs whose process is gone, and remove the files that they left half-way."""
        with self._engine.connect() as connection:
            query = sa.select(runs.c.id, runs.c.process).where(runs.c.status == "running")
            dead = [row.id for row in connection.execute(query) if process.is_dead(row.process)]
        for run_id in dead:
            last = sa.select(sa.func.max(points.c.measured_at)).where(points.c.run_id == run_id)
            with self._writer.begin() as connection:
                connection.execute(
                    runs.update()
                    .where(runs.c.id == run_id, runs.c.status == "running")
                    .values(
                        status="interrupted",
                        note="the measuring process died",
                        ended_at=sa.func.coalesce(last.scalar_subquery(), runs.c.started_at),
                        process=None,
                    )
                )
                traces = sa.select(points.c.trace).where(
                    points.c.run_id == run_id, points.c.trace.is_not(None)
                )
                known = {Path(trace).name for trace in connection.scalars(traces)}
            folder.remove_orphans(folder.trace_folder(self._root, run_id), known)

    # Reading

    def completed(self, fingerprint: str, series: str) -> set[OperatingPoint]:
        """Return the points (tp, gpus, concurrency, isl, osl, repeat) that need no second run."""
        columns = points.c["tp", "gpus", "concurrency", "isl", "osl", "repeat"]
        query = (
            sa.select(*columns)
            .join_from(points, runs)
            .where(runs.c.fingerprint == fingerprint, runs.c.series == series)
        )
        with self._errors(), self._engine.connect() as connection:
            return {tuple(row) for row in connection.execute(query)}

    def series(self) -> list[SeriesSummary]:
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
        run_columns = runs.c["series", "model", "hardware", "fingerprint"]
        run_query = sa.select(*run_columns, *per_run.c["points", "first", "last"]).outerjoin_from(
            runs, per_run
        )
        work_query = (
            sa.select(runs.c.series, points.c.isl, points.c.osl).join_from(runs, points).distinct()
        )
        with self._errors(), self._engine.connect() as connection:
            by_name = defaultdict(list)
            for row in connection.execute(run_query):
                by_name[row.series].append(row)
            workloads = defaultdict(set)
            for row in connection.execute(work_query):
                workloads[row.series].add((row.isl, row.osl))
        summaries = [_summary(name, of, workloads[name]) for name, of in by_name.items()]
        far = datetime.max.replace(tzinfo=UTC).date()
        return sorted(summaries, key=lambda each: (each.first_measured_on or far, each.name))

    def fingerprints(
        self, name: str, isl: int | None = None, osl: int | None = None
    ) -> frozenset[str]:
        """Return the fingerprints of the runs behind `points(name, isl, osl)`."""
        query = sa.select(runs.c.fingerprint).join_from(runs, points).distinct()
        with self._errors(), self._engine.connect() as connection:
            return frozenset(connection.scalars(_of_workload(query, name, isl, osl)))

    def points(self, name: str, isl: int | None = None, osl: int | None = None) -> list[Point]:
        """Return the points of a series, of one workload where it is given.

        Repeats are counted over all runs of the series: where two runs measured the same operating
        point under the same repeat, the later one takes the next free number.

        Raises:
            InputError: the store has no such series.
        """
        columns = points.c["interactivity", "tput_per_gpu", "tp", "gpus", "concurrency", "repeat"]
        query = sa.select(*columns, *points.c["isl", "osl"]).join_from(points, runs)
        query = _of_workload(query, name, isl, osl).order_by(points.c.measured_at, points.c.id)
        taken: dict[tuple[int, ...], set[int]] = defaultdict(set)
        found = []
        with self._errors(), self._engine.connect() as connection:
            for x, y, tp, gpus, concurrency, repeat, *workload in connection.execute(query):
                used = taken[tp, gpus, concurrency, *workload]
                if repeat in used:
                    repeat = max(used) + 1
                used.add(repeat)
                found.append(Point(x, y, tp, gpus, concurrency, repeat))
        if not found:
            self._require([name])
        return found

    def rows(self, series: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield one flat dict per point, of the named series or of all, run by run.

        Keys are the columns of `upcurve export`; times are aware datetimes, recipe, host, devices,
        software, result and accuracy are objects.

        Raises:
            InputError: the store has no such series.
        """
        if series:
            self._require(series)
        query = (
            sa.select(*EXPORTED)
            .join_from(points, runs)
            .order_by(runs.c.started_at, runs.c.id, points.c.id)
        )
        if series:
            query = query.where(runs.c.series.in_(series))
        with self._errors(), self._engine.connect() as connection:
            streamed = connection.execution_options(yield_per=CHUNK).execute(query)
            for row in streamed.mappings():
                yield dict(row)

    def trace(self, point_id: int) -> pyarrow.Table:
        """Return the request trace of a point.

        Raises:
            InputError: there is no such point, or it was stored without a trace.
        """
        with self._errors():
            with self._engine.connect() as connection:
                query = sa.select(points.c.trace).where(points.c.id == point_id)
                row = connection.execute(query).one_or_none()
            if row is None or row.trace is None:
                problem = "no such point" if row is None else "stored without a trace"
                raise InputError(
                    f"point {point_id}", problem, "see upcurve export for what is there"
                )
            return pyarrow.parquet.read_table(self._root / row.trace)

    def _require(self, names: Sequence[str]) -> None:
        query = sa.select(runs.c.series).distinct().order_by(runs.c.series)
        with self._errors(), self._engine.connect() as connection:
            known = list(connection.scalars(query))
        for name in names:
            if name not in known:
                listed = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
                mend = f"it holds {listed}" if known else "it is empty: import or sweep first"
                raise InputError(f"series '{name}'", f"not in the store {self._name}", mend)

    def _errors(self) -> Any:
        return database.errors_in_words(self._name)


EXPORTED: list[sa.ColumnElement[Any]] = [
    runs.c.series,
    points.c.measured_at.label("measured_on"),
    *runs.c["hardware", "engine", "engine_version", "image", "model", "precision"],
    *points.c["isl", "osl", "tp", "gpus", "concurrency", "repeat"],
    *points.c["tput_per_gpu", "interactivity", "input_tput_per_gpu", "output_tput_per_gpu"],
    *points.c["tpot_ms", "ttft_ms", "requests", "failed"],
    runs.c.id.label("run"),
    *runs.c["source", "fingerprint", "started_at", "engine_commit", "change", "harness_version"],
    *runs.c["recipe", "host", "devices", "software"],
    *points.c["accuracy", "result"],
]
"""Columns of a flat row, in the order of the export."""


def _of_workload(
    query: sa.Select[Any], name: str, isl: int | None, osl: int | None
) -> sa.Select[Any]:
    query = query.where(runs.c.series == name)
    if isl is not None:
        query = query.where(points.c.isl == isl)
    if osl is not None:
        query = query.where(points.c.osl == osl)
    return query


def _run_values(run: RunRecord) -> dict[str, Any]:
    values = {each.name: getattr(run, each.name) for each in fields(run)}
    values["devices"] = values.pop("gpus")
    return values


def _point_values(run_id: str, point: PointRecord) -> dict[str, Any]:
    return {"run_id": run_id} | {each.name: getattr(point, each.name) for each in _POINT_FIELDS}


_POINT_FIELDS = fields(PointRecord)


def _insert_points(connection: sa.Connection, run_id: str, records: Iterable[PointRecord]) -> None:
    remaining = iter(records)
    while chunk := [_point_values(run_id, each) for each in islice(remaining, CHUNK)]:
        connection.execute(points.insert(), chunk)


def _refused(run_id: str, error: sa.exc.IntegrityError) -> InputError:
    if "foreign key" in str(error.orig).lower():
        return InputError("run", f"the store has none named {run_id}", "begin it first")
    return InputError(
        f"run {run_id}", "this run or point is in the store already", "give it another repeat index"
    )


def _summary(name: str, of: list[Any], workloads: set[tuple[int, int]]) -> SeriesSummary:
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
