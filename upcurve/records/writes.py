"""What the store writes: plain statements on a connection, whose transaction is the caller's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from upcurve.errors import InputError
from upcurve.records import process
from upcurve.records.queries import CHUNK
from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.schema import points, runs

FinishedRun = tuple[str, RunRecord, Iterable[PointRecord]]
"""A whole run with its id and points."""


def begin_run(connection: sa.Connection, run_id: str, run: RunRecord) -> None:
    """Add a run of this process that has begun."""
    begun = {"id": run_id, "status": "running", "process": process.this_process()}
    connection.execute(runs.insert(), _run_values(run) | begun)


def add_point(connection: sa.Connection, run_id: str, point: PointRecord, trace: str | None) -> int:
    """Add a point and the path of its trace; return its id."""
    values = _point_values(run_id, point) | {"trace": trace}
    added = points.insert().values(values).returning(points.c.id)
    return int(connection.execute(added).scalar_one())


def add_points(connection: sa.Connection, run_id: str, records: Iterable[PointRecord]) -> None:
    """Add many points without traces."""
    remaining = iter(records)
    while chunk := [_point_values(run_id, each) for each in islice(remaining, CHUNK)]:
        connection.execute(points.insert(), chunk)


def add_finished_runs(
    connection: sa.Connection, finished: Iterable[FinishedRun], note: str
) -> set[str]:
    """Add whole runs, and return their ids; one that is there already is left as it is."""
    added = set()
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    for run_id, run, records in finished:
        ends = {"id": run_id, "status": "complete", "note": note, "ended_at": run.started_at}
        insert = dialect.insert(runs).values(_run_values(run) | ends)
        if connection.execute(insert.on_conflict_do_nothing()).rowcount:
            add_points(connection, run_id, records)
            added.add(run_id)
    return added


def set_accuracy(connection: sa.Connection, point_id: int, accuracy: dict[str, Any]) -> None:
    """Replace the accuracy of a point.

    Raises:
        InputError: there is no such point.
    """
    judged = points.update().where(points.c.id == point_id).values(accuracy=accuracy)
    if connection.execute(judged).rowcount != 1:
        raise InputError(f"point {point_id}", "there is no such point", "measure it first")


def end_run(
    connection: sa.Connection,
    run_id: str,
    status: Literal["complete", "interrupted", "failed"],
    note: str | None,
) -> None:
    """Set the end of a run.

    Raises:
        InputError: there is no such run.
    """
    ended = (
        runs.update()
        .where(runs.c.id == run_id)
        .values(status=status, note=note, ended_at=datetime.now(UTC), process=None)
    )
    if connection.execute(ended).rowcount != 1:
        raise InputError("run", f"the store has none named {run_id}", "begin it first")


def mark_interrupted(connection: sa.Connection, run_id: str) -> set[str]:
    """Mark a run whose process is gone, and return the file names of its traces."""
    last = sa.select(sa.func.max(points.c.measured_at)).where(points.c.run_id == run_id)
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
    traces = sa.select(points.c.trace).where(points.c.run_id == run_id, points.c.trace.is_not(None))
    return {Path(trace).name for trace in connection.scalars(traces)}


def refused(run_id: str, error: sa.exc.IntegrityError) -> InputError:
    """Return what the database refused of a point, in words."""
    if "foreign key" in str(error.orig).lower():
        return InputError("run", f"the store has none named {run_id}", "begin it first")
    return InputError(f"run {run_id}", "it has this point already", "give it another repeat index")


def _run_values(run: RunRecord) -> dict[str, Any]:
    values = {each.name: getattr(run, each.name) for each in _RUN_FIELDS}
    values["devices"] = values.pop("gpus")
    return values


def _point_values(run_id: str, point: PointRecord) -> dict[str, Any]:
    values = {each.name: getattr(point, each.name) for each in _POINT_FIELDS}
    values["run_id"] = run_id
    return values


_RUN_FIELDS = fields(RunRecord)
_POINT_FIELDS = fields(PointRecord)
