"""The store: where runs, points, traces and logs are kept."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Any, Literal

import pyarrow
import sqlalchemy as sa

from upcurve.records import database, folder, queries, writes
from upcurve.records.place import place_of
from upcurve.records.reader import StoreReader
from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.writes import FinishedRun


class Store(StoreReader):
    """Runs, points, traces and logs, in a folder or in PostgreSQL with a folder for the files.

    Several processes may write at once. A point is visible whole or not at all.
    """

    def __init__(self, name: str, engine: sa.Engine, root: Path) -> None:
        super().__init__(name, engine, root)
        self._writer = engine.execution_options(writes=True)

    @classmethod
    def open(cls, location: str | Path, *, create: bool = True) -> Store:
        """Open a store, bring its tables up to date and mark the runs of dead processes.

        Args:
            location: a folder, or a postgresql:// URL; then the environment variable
                UPCURVE_TRACES names the folder of traces and logs.
            create: whether a missing store is created. Without, a folder that cannot be written
                is opened for reading only.

        Raises:
            InputError: the store is missing, unreadable, unreachable or of a newer upcurve.
        """
        found = place_of(location, create=create)
        store = cls(found.name, found.engine, found.root)
        if found.read_only:
            return store
        with store._errors():
            database.bring_up_to_date(found.engine, found.name)
            store._mark_interrupted()
        return store

    def begin_run(self, run: RunRecord) -> str:
        """Record the start of a run and return its id; `end_run` must follow."""
        run_id = f"{run.started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        with self._writing() as connection:
            writes.begin_run(connection, run_id, run)
        return run_id

    def add_point(
        self,
        run_id: str,
        point: PointRecord,
        trace: pyarrow.Table | None = None,
        telemetry: Mapping[str, pyarrow.Table] | None = None,
    ) -> int:
        """Add one point to a run and return the point's id.

        Args:
            run_id: the run.
            point: its figures.
            trace: its requests, one row each.
            telemetry: what was sampled along it, by name; kept beside the trace.

        Raises:
            InputError: the run has this point already, there is no such run, or the disk refuses.
        """
        path: Path | None = None
        try:
            with self._errors():
                if trace is not None:
                    stem = (
                        f"tp{point.tp}-ep{point.ep}-dp{point.dp}-gpus{point.gpus}"
                        f"-c{point.concurrency}"
                        f"-{point.isl}x{point.osl}-r{point.repeat}"
                    )
                    path = folder.write_trace(folder.trace_folder(self._root, run_id), stem, trace)
                    folder.write_telemetry(path, telemetry or {})
                kept = None if path is None else str(path.relative_to(self._root))
                with self._writer.begin() as connection:
                    return writes.add_point(connection, run_id, point, kept)
        except BaseException as error:
            if path is not None:
                folder.remove_trace(path)
            if isinstance(error, sa.exc.IntegrityError):
                raise writes.refused(run_id, error) from error
            raise

    def set_accuracy(self, point_id: int, accuracy: dict[str, Any]) -> None:
        """Record the accuracy at a point, in place of what it had.

        Raises:
            InputError: there is no such point, or the disk refuses.
        """
        with self._writing() as connection:
            writes.set_accuracy(connection, point_id, accuracy)

    def add_points(self, run_id: str, records: Iterable[PointRecord]) -> None:
        """Add many points without traces to a run: all of them or none."""
        try:
            with self._writing() as connection:
                writes.add_points(connection, run_id, records)
        except sa.exc.IntegrityError as error:
            raise writes.refused(run_id, error) from error

    def add_finished_runs(self, finished: Iterable[FinishedRun], note: str) -> set[str]:
        """Add whole runs, each with its id and points, in one transaction: all of them or none.

        Returns:
            The ids that were added; a run whose id the store has already is left as it is.
        """
        with self._writing() as connection:
            return writes.add_finished_runs(connection, finished, note)

    def end_run(
        self,
        run_id: str,
        status: Literal["complete", "interrupted", "failed"],
        note: str | None = None,
    ) -> None:
        """Record the end of a run.

        Raises:
            InputError: there is no such run, or the disk refuses.
        """
        with self._writing() as connection:
            writes.end_run(connection, run_id, status, note)

    def log_path(self, run_id: str) -> Path:
        """Return the file that takes the server's log of a run; its folder exists."""
        with self._errors():
            return folder.log_file(self._root, run_id)

    def _mark_interrupted(self) -> None:
        """Mark runs whose process is gone, and remove the files that they left half-way."""
        with self.reading() as connection:
            dead = queries.dead_runs(connection)
        for run_id in dead:
            with self._writing() as connection:
                known = writes.mark_interrupted(connection, run_id)
            folder.remove_orphans(folder.trace_folder(self._root, run_id), known)

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """Give a connection in a transaction that is committed whole or not at all."""
        with self._errors(), self._writer.begin() as connection:
            yield connection
