"""Rows of other clients, or of an export, brought into the store: all of them or none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from upcurve.errors import InputError
from upcurve.records import published, sheet
from upcurve.records.columns import COLUMNS, REQUIRED, Problem
from upcurve.records.grouping import Group, grouped
from upcurve.records.store import Store

AGREE = 0.01
"""How far interactivity may be from 1000 / tpot_ms: two figures that were rounded for print."""


class RowsError(InputError):
    """A file with unusable rows: the line shows the first problem and counts the others."""

    def __init__(self, file: str, unit: str, problems: Sequence[Problem]) -> None:
        self.file = file
        self.unit = unit
        self.problems = sorted(problems, key=lambda each: each.place or 0)
        first = self.problems[0]
        field = file
        if first.place is not None:
            field += f", {unit} {first.place}"
        if first.column is not None:
            field += f", column '{first.column}'"
        more = len(problems) - 1
        rest = f" (and {more} more {'problem' if more == 1 else 'problems'}; --json lists all)"
        super().__init__(field, first.problem, first.mend + (rest if more else ""))

    def as_dict(self) -> dict[str, Any]:
        """Return every problem, for `--json`."""
        return {
            "file": self.file,
            "place": self.unit,
            "problems": [asdict(p) for p in self.problems],
        }


class OtherRowsError(InputError):
    """A run is in the store with other rows."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    file: str
    added: dict[str, int]
    """Series -> rows that are new in the store."""
    already_there: dict[str, int]
    """Series -> rows that the store held before, from the same content."""
    unknown_columns: list[str]
    """Columns without a place of their own: kept under `result`."""
    warnings: list[str]

    def lines(self, store: str) -> list[str]:
        """Say in words what was done."""
        words = [f"{name}: {count} rows added to {store}" for name, count in self.added.items()]
        words += [
            f"{name}: {count} rows are in {store} already, nothing added"
            for name, count in self.already_there.items()
        ]
        if self.unknown_columns:
            listed = ", ".join(self.unknown_columns)
            words.append(f"columns without a place of their own, kept under 'result': {listed}")
        return words


@dataclass(frozen=True, slots=True)
class ReadRows:
    """The rows of a file, checked and grouped into runs, ready for a store."""

    location: str
    groups: list[Group]
    unknown_columns: list[str]
    warnings: list[str]


def import_rows(store: Store, location: str, given: Mapping[str, str] | None = None) -> Imported:
    """Bring the rows of a file, or of a published set, into the store: read, then add.

    Raises:
        InputError: as `read_rows` and `add_rows`.
    """
    return add_rows(store, read_rows(location, given or {}))


def add_rows(store: Store, rows: ReadRows) -> Imported:
    """Add the runs of a file to the store, in one transaction.

    Content that the store has already, from this or another file, is not added again.

    Raises:
        OtherRowsError: a run of the file is in the store with other rows.
    """
    added: defaultdict[str, int] = defaultdict(int)
    there: defaultdict[str, int] = defaultdict(int)
    fresh: dict[str, Group] = {}
    for group in rows.groups:
        digest = group.digest()
        run_id = group.run_id or f"import-{digest[:24]}"
        if run_id in fresh or _is_stored(store, run_id, group, digest):
            there[group.run.series] += len(group.points)
        else:
            fresh[run_id] = group
    finished = ((run_id, group.run, group.points) for run_id, group in fresh.items())
    stored = store.add_finished_runs(finished, note=f"imported from {Path(rows.location).name}")
    for run_id, group in fresh.items():
        (added if run_id in stored else there)[group.run.series] += len(group.points)
    return Imported(rows.location, dict(added), dict(there), rows.unknown_columns, rows.warnings)


def _is_stored(store: Store, run_id: str, group: Group, digest: str) -> bool:
    """Whether the store has the run with the very same rows."""
    if group.run_id is None:
        return store.has_run(run_id)  # the id is the content
    found = store.find_run(run_id)
    if found is None:
        return False
    if Group(run_id, *found).digest() != digest:
        raise OtherRowsError(
            f"run {run_id}",
            "the store has it with other rows",
            "remove the column 'run' to import these rows as a run of their own",
        )
    return True


def read_assignments(assignments: Sequence[str]) -> dict[str, str]:
    """Return column -> value from texts COLUMN=VALUE.

    Raises:
        InputError: a text has no "=", or a column comes twice.
    """
    given: dict[str, str] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name or name in given:
            problem = "it comes twice" if name in given else "there is no '='"
            raise InputError(f"--set {text}", problem, "write --set COLUMN=VALUE once per column")
        given[name] = value
    return given


def read_rows(location: str, given: Mapping[str, str]) -> ReadRows:
    """Read and check the rows of a file or of a published set; no store is touched.

    Rows become runs, one per all that is equal but parallelism, concurrency and metrics. Rows of
    one run that measure the same operating point become its repeats.

    Args:
        location: a CSV or JSON file, or "published:NAME".
        given: column -> value, for columns that the file lacks.

    Raises:
        RowsError: rows or columns are unusable.
        InputError: the file is unusable as a whole.
    """
    scheme, _, name = location.partition(":")
    path = published.measured_file(name) if scheme == "published" else Path(location)
    return checked_rows(sheet.read(path), location, str(path), given)


def checked_rows(rows: sheet.Sheet, location: str, path: str, given: Mapping[str, str]) -> ReadRows:
    """Check rows and group them into runs, as `read_rows` does.

    Args:
        rows: cells by column.
        location: where they are from, as the store keeps it.
        path: what errors call them.
        given: column -> value, for columns that they lack.

    Raises:
        RowsError: rows or columns are unusable.
        InputError: `given` is.
    """
    columns = dict(rows.columns)
    known = {column.name for column in COLUMNS}
    for name, value in given.items():
        if name not in known:
            raise InputError(
                f"--set {name}", "no such column", f"known are {', '.join(sorted(known))}"
            )
        if name in columns:
            raise InputError(f"--set {name}", f"{path} has that column", "change the file instead")
        columns[name] = [value] * len(rows)
    problems = list(rows.problems)
    unknown = [name for name in columns if name not in known]
    missing = [name for name in REQUIRED if name not in columns]
    if missing and len(rows):
        problems += [_missing(name, unknown) for name in missing]
    if missing:
        raise RowsError(path, rows.unit, problems)
    values: dict[str, list[Any]] = {}
    # A bench does not see the server's hardware, and need not be told.
    unseen = {index for index, cell in enumerate(columns.get("source", ())) if cell == "bench"}
    for column in COLUMNS:
        if column.name in columns:
            optional = unseen if column.name == "hardware" else set()
            values[column.name], bad = column.read(columns[column.name], rows.places, optional)
            problems += bad
        else:
            values[column.name] = [column.empty] * len(rows)
    if not problems:
        problems += _impossible(values, rows.places)
    if problems:
        raise RowsError(path, rows.unit, problems)
    extra = {name: columns[name] for name in unknown}
    groups, bad = grouped(values, extra, rows.places)
    if bad:
        raise RowsError(path, rows.unit, bad)
    return ReadRows(location, groups, unknown, _warnings(values, rows))


def _missing(name: str, unknown: Sequence[str]) -> Problem:
    close = get_close_matches(name, unknown, n=1)
    mend = f"rename '{close[0]}', or " if close else "add it, or "
    return Problem(None, name, "the column is missing", f"{mend}give --set {name}=VALUE")


def _impossible(values: Mapping[str, list[Any]], places: Sequence[int]) -> Iterator[Problem]:
    sizes = (values[name] for name in ("tp", "dp", "gpus"))
    for place, tp, dp, gpus in zip(places, *sizes, strict=True):
        if gpus < tp * dp:
            yield Problem(
                place, "gpus", f"{gpus} is below tp {tp}", "count every GPU that the run used"
            )


def _warnings(values: Mapping[str, list[Any]], rows: sheet.Sheet) -> list[str]:
    """Say where interactivity is not 1000 / median TPOT: it was measured in another way."""
    apart = [
        f"{rows.unit} {place}: interactivity {speed:g} is not 1000 / tpot_ms = {1000 / tpot:.2f}"
        for place, speed, tpot in zip(
            rows.places, values["interactivity"], values["tpot_ms"], strict=True
        )
        if tpot is not None and abs(speed * tpot / 1000 - 1) > AGREE
    ]
    more = len(apart) - 5
    return apart[:5] + ([f"and {more} more rows like these"] if more > 0 else [])
