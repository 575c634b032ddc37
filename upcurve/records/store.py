"""The store: where runs, points, traces and logs are kept."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any, Literal

import pyarrow
import pyarrow.parquet
import sqlalchemy as sa

from upcurve.closing import Closing
from upcurve.errors import InputError
from upcurve.frontier.point import Facts, Point
from upcurve.records import database, folder, queries, writes
from upcurve.records.place import place_of
from upcurve.records.queries import OperatingPoint
from upcurve.records.run import PointRecord, RunRecord, SeriesSummary
from upcurve.records.writes import FinishedRun


class Store(Closing):
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

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @property
    def name(self) -> str:
        """Folder or URL, its password hidden."""
        return self._name

    @property
    def root(self) -> Path:
        """The folder of traces and logs."""
        return self._root

    # Writing

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

    # Reading

    def completed(self, fingerprint: str, series: str) -> set[OperatingPoint]:
        """Return the points that need no second run."""
        with self.reading() as connection:
            return queries.completed(connection, fingerprint, series)

    def results(self, fingerprint: str, series: str) -> list[tuple[int, dict[str, Any]]]:
        """Return repeat and figures (as `bench --json` prints) of the same, oldest first."""
        with self.reading() as connection:
            return queries.results(connection, fingerprint, series)

    def series(self) -> list[SeriesSummary]:
        """Return one summary per series, in the order of their first measurement."""
        with self.reading() as connection:
            return queries.series(connection)

    def fingerprints(
        self, name: str, isl: int | None = None, osl: int | None = None
    ) -> frozenset[str]:
        """Return the fingerprints of the runs behind `points(name, isl, osl)`."""
        with self.reading() as connection:
            return queries.fingerprints(connection, name, isl, osl)

    def points(self, name: str, isl: int | None = None, osl: int | None = None) -> list[Point]:
        """Return the points of a series, of one workload where it is given.

        Repeats are counted over all runs of one fingerprint: where two of them measured the same
        operating point under the same repeat, the later one takes the next free number. Runs of
        different fingerprints keep their numbers: they are no repeats of one another.

        Raises:
            InputError: the store has no such series.
        """
        with self.reading() as connection:
            found = queries.points_of(connection, name, isl, osl)
        if not found:
            self._require([name])
        return found

    def latest_points(self, name: str) -> dict[int, tuple[int, int]]:
        """Return concurrency -> (id, isl) of the point of a series that was measured last there.

        Raises:
            InputError: the store has no such series.
        """
        self._require([name])
        with self.reading() as connection:
            return queries.latest_points(connection, name)

    def facts(self, ids: Sequence[int], *, traced: Sequence[int] = ()) -> dict[int, Facts]:
        """Return what a reader must know of points, by id.

        Args:
            ids: of the points.
            traced: those of them whose request noise is wanted, where a trace was kept.
        """
        with self.reading() as connection:
            found = queries.facts(connection, ids)
        wanted = set(traced)
        return {
            key: replace(known, request_noise=self._request_noise(trace))
            if trace and key in wanted
            else known
            for key, (known, trace) in found.items()
        }

    def _request_noise(self, trace: str) -> tuple[float, float] | None:
        with self._errors():
            return folder.read_request_noise(self._root / trace)

    def repeated_figures(self, name: str, isl: int, osl: int) -> list[list[tuple[float, float]]]:
        """Return (interactivity, throughput) of repeats, by group, of recipes like a series'."""
        with self.reading() as connection:
            return queries.repeated_figures(connection, name, isl, osl)

    def has_run(self, run_id: str) -> bool:
        """Whether the store has a run of this id."""
        with self.reading() as connection:
            return queries.has_run(connection, run_id)

    def find_run(self, run_id: str) -> tuple[RunRecord, list[PointRecord]] | None:
        """Return a run with its points; None where the store has none of this id."""
        with self.reading() as connection:
            return queries.find_run(connection, run_id)

    def rows(self, series: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Return one flat dict per point, of the named series or of all, run by run.

        Keys are the columns of `upcurve export`; times are aware datetimes, recipe, host, devices,
        software, result and accuracy are objects.

        Raises:
            InputError: the store has no such series.
        """
        self._require(series or [])  # now, not when the first row is asked for
        return self._rows(series)

    def trace(self, point_id: int) -> pyarrow.Table:
        """Return the request trace of a point.

        Raises:
            InputError: there is no such point, or it was stored without a trace.
        """
        with self.reading() as connection:
            path = queries.trace_path(connection, point_id)
        with self._errors():
            return pyarrow.parquet.read_table(self._root / path)

    def telemetry(self, point_id: int) -> dict[str, pyarrow.Table]:
        """Return what was sampled along a point (`server`, `gpus`), as far as it was kept.

        Raises:
            InputError: there is no such point, or it was stored without a trace.
        """
        with self.reading() as connection:
            path = queries.trace_path(connection, point_id)
        with self._errors():
            return folder.read_telemetry(self._root / path)

    def _rows(self, series: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        with self.reading() as connection:
            yield from queries.rows(connection, series)

    def _require(self, names: Sequence[str]) -> None:
        if not names:
            return
        with self.reading() as connection:
            known = queries.names(connection)
        for name in names:
            if name not in known:
                listed = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
                mend = f"it holds {listed}" if known else "it is empty: import or sweep first"
                raise InputError(f"series '{name}'", f"not in the store {self._name}", mend)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection to read by; what the database refuses is an `InputError`."""
        with self._errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """Give a connection in a transaction that is committed whole or not at all."""
        with self._errors(), self._writer.begin() as connection:
            yield connection

    def _errors(self) -> AbstractContextManager[None]:
        return database.errors_in_words(self._name)
