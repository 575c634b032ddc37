"""What a store is asked: runs, points, traces and telemetry as they were kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import sqlalchemy as sa

from upcurve.closing import Closing
from upcurve.errors import InputError
from upcurve.frontier.point import Facts, Point
from upcurve.records import database, folder, queries
from upcurve.records.queries import OperatingPoint
from upcurve.records.run import PointRecord, RunRecord, SeriesSummary


class StoreReader(Closing):
    """All of a store but what writes to it: what only reads is given this."""

    def __init__(self, name: str, engine: sa.Engine, root: Path) -> None:
        self._name = name
        self._engine = engine
        self._root = root

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

    def _errors(self) -> AbstractContextManager[None]:
        return database.errors_in_words(self._name)
