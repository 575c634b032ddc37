"""Rows of other clients, or of an export, brought into the store: all of them or none."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import orjson

from upcurve.errors import InputError
from upcurve.records import published, sheet
from upcurve.records.columns import COLUMNS, REQUIRED, Problem
from upcurve.records.fingerprint import SpeedFacts, fingerprint
from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.store import Store

OF_RUN = (
    "series", "hardware", "engine", "engine_version", "image", "model", "precision", "source",
    "fingerprint", "started_at", "engine_commit", "change", "harness_version", "recipe", "host",
    "devices", "software",
)  # fmt: skip
"""Columns that say what a run is; rows that agree in them, in day and workload are one run."""

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
class _Group:
    run_id: str | None
    """Id that the file gives; None where it is to be derived from the content."""
    run: RunRecord
    points: list[PointRecord]

    def digest(self) -> str:
        """Return a hash of the content that does not depend on the order of the rows."""
        of_points = sorted(_digest(point, _POINT_FIELDS) for point in self.points)
        return hashlib.sha256(_digest(self.run, _RUN_FIELDS) + b"".join(of_points)).hexdigest()


_RUN_FIELDS = tuple(each.name for each in fields(RunRecord))
_POINT_FIELDS = tuple(each.name for each in fields(PointRecord))


def _digest(record: RunRecord | PointRecord, names: Sequence[str]) -> bytes:
    return hashlib.sha256(_json([getattr(record, name) for name in names])).digest()


def import_rows(store: Store, location: str, given: Mapping[str, str] | None = None) -> Imported:
    """Bring the rows of a file, or of a published set, into the store.

    Rows become runs, one per all that is equal but parallelism, concurrency and metrics. Rows of
    one run that measure the same operating point become its repeats. Content that the store has
    already, from this or another file, is not added again.

    Args:
        store: where the rows go.
        location: a CSV or JSON file, or "published:NAME".
        given: column -> value, for columns that the file lacks.

    Raises:
        RowsError: rows or columns are unusable; nothing was stored.
        InputError: the file is unusable as a whole, or a run of it is in the store with other rows.
    """
    scheme, _, name = location.partition(":")
    path = published.measured_file(name) if scheme == "published" else Path(location)
    groups, unknown, warnings = read_groups(path, given or {})
    added: defaultdict[str, int] = defaultdict(int)
    there: defaultdict[str, int] = defaultdict(int)
    fresh: dict[str, _Group] = {}
    for group in groups:
        digest = group.digest()
        run_id = group.run_id or f"import-{digest[:24]}"
        if run_id in fresh or _is_stored(store, run_id, group, digest):
            there[group.run.series] += len(group.points)
        else:
            fresh[run_id] = group
    stored = store.add_finished_runs(
        ((run_id, group.run, group.points) for run_id, group in fresh.items()),
        note=f"imported from {location if scheme == 'published' else path.name}",
    )
    for run_id, group in fresh.items():
        (added if run_id in stored else there)[group.run.series] += len(group.points)
    return Imported(location, dict(added), dict(there), unknown, warnings)


def _is_stored(store: Store, run_id: str, group: _Group, digest: str) -> bool:
    """Whether the store has the run with the very same rows."""
    if group.run_id is None:
        return store.has_run(run_id)  # the id is the content
    found = store.find_run(run_id)
    if found is None:
        return False
    if _Group(run_id, *found).digest() != digest:
        raise InputError(
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


def read_groups(path: Path, given: Mapping[str, str]) -> tuple[list[_Group], list[str], list[str]]:
    """Return the runs of a file, its unknown columns and warnings.

    Raises:
        InputError: as `import_rows`.
    """
    rows = sheet.read(path)
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
        raise RowsError(str(path), rows.unit, problems)
    values: dict[str, list[Any]] = {}
    for column in COLUMNS:
        if column.name in columns:
            values[column.name], bad = column.read(columns[column.name], rows.places)
            problems += bad
        else:
            values[column.name] = [column.empty] * len(rows)
    if not problems:
        problems += _impossible(values, rows.places)
    if problems:
        raise RowsError(str(path), rows.unit, problems)
    extra = {name: columns[name] for name in unknown}
    groups, bad = _grouped(values, extra, rows.places)
    if bad:
        raise RowsError(str(path), rows.unit, bad)
    return groups, unknown, _warnings(values, rows)


def _missing(name: str, unknown: Sequence[str]) -> Problem:
    close = get_close_matches(name, unknown, n=1)
    mend = f"rename '{close[0]}', or " if close else "add it, or "
    return Problem(None, name, "the column is missing", f"{mend}give --set {name}=VALUE")


def _impossible(values: Mapping[str, list[Any]], places: Sequence[int]) -> Iterator[Problem]:
    for place, tp, gpus in zip(places, values["tp"], values["gpus"], strict=True):
        if gpus < tp:
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


def _grouped(
    values: Mapping[str, list[Any]], extra: Mapping[str, list[Any]], places: Sequence[int]
) -> tuple[list[_Group], list[Problem]]:
    days = [moment.date() for moment in values["measured_on"]]
    of_run = zip(*(_hashable(values[name]) for name in OF_RUN), strict=True)
    workloads = zip(days, values["isl"], values["osl"], strict=True)
    members: dict[Any, list[int]] = defaultdict(list)
    facts: dict[str, tuple[int, Any]] = {}
    problems: list[Problem] = []
    for index, (run_id, fact, workload) in enumerate(
        zip(values["run"], of_run, workloads, strict=True)
    ):
        if run_id is None:
            members[fact, workload].append(index)
            continue
        first, expected = facts.setdefault(run_id, (index, fact))
        if fact != expected:
            column = next(
                name
                for name, one, other in zip(OF_RUN, fact, expected, strict=True)
                if one != other
            )
            problems.append(
                Problem(
                    places[index],
                    column,
                    f"differs from row {places[first]} of the same run {run_id}",
                    "give it another run, or leave the column 'run' out",
                )
            )
        members[run_id].append(index)
    groups = []
    for of in members.values():
        points, bad = _points(values, extra, of, places)
        problems += bad
        groups.append(_Group(values["run"][of[0]], _run(values, of), points))
    return groups, problems


def _hashable(column: list[Any]) -> list[Any]:
    if not isinstance(column[0], dict | list):
        return column
    texts: dict[int, bytes] = {}  # rows share the object that stands for an empty cell
    same: dict[bytes, bytes] = {}
    for value in column:
        if id(value) not in texts:
            text = _json(value)
            texts[id(value)] = same.setdefault(text, text)
    return [texts[id(value)] for value in column]


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _run(values: Mapping[str, list[Any]], of: list[int]) -> RunRecord:
    row = {name: values[name][of[0]] for name in OF_RUN}
    row["gpus"] = row.pop("devices")
    if row["started_at"] is None:
        row["started_at"] = min(values["measured_on"][index] for index in of)
    if row["fingerprint"] is None:
        workload = {name: values[name][of[0]] for name in ("isl", "osl")}
        row["fingerprint"] = _fingerprint(row, workload)
    return RunRecord(**row)


def _fingerprint(row: Mapping[str, Any], workload: dict[str, Any]) -> str:
    """Hash what the rows say of the run; what they do not say stays empty."""
    return fingerprint(
        SpeedFacts(
            engine=row["engine"],
            engine_version=row["engine_version"],
            engine_commit=row["engine_commit"],
            image=row["image"],
            command=[],
            environment={},
            model=row["model"],
            model_files={},
            precision=row["precision"],
            workload=workload | {"recipe": row["recipe"]},
            hardware=row["hardware"],
            software=row["software"],
            harness_version=row["harness_version"],
        )
    )


_AS_THEY_ARE = (
    "isl", "osl", "tp", "gpus", "concurrency", "tput_per_gpu", "interactivity",
    "input_tput_per_gpu", "output_tput_per_gpu", "tpot_ms", "ttft_ms", "requests", "failed",
    "accuracy",
)  # fmt: skip


def _points(
    values: Mapping[str, list[Any]],
    extra: Mapping[str, list[Any]],
    of: list[int],
    places: Sequence[int],
) -> tuple[list[PointRecord], list[Problem]]:
    """Build the points of one run; a point that comes again is its next repeat."""
    taken: dict[Any, dict[int, int]] = defaultdict(dict)
    points: list[PointRecord] = []
    problems: list[Problem] = []
    for index in of:
        row = {name: values[name][index] for name in _AS_THEY_ARE}
        repeat = values["repeat"][index]
        used = taken[row["isl"], row["osl"], row["tp"], row["gpus"], row["concurrency"]]
        if repeat is None:
            repeat = max(used, default=-1) + 1
        elif repeat in used:
            problem = f"{repeat} comes twice for this operating point, first in row {used[repeat]}"
            problems.append(
                Problem(places[index], "repeat", problem, "number the repeats 0, 1, ...")
            )
        used[repeat] = places[index]
        result = values["result"][index]
        further = {
            name: _plain(cells[index])
            for name, cells in extra.items()
            if cells[index] not in ("", None)
        }
        points.append(
            PointRecord(
                **row,
                repeat=repeat,
                measured_at=values["measured_on"][index],
                result=result | further if further else result,
            )
        )
    return points, problems


def _plain(cell: Any) -> Any:
    """Turn a cell of a CSV file into the number that it is, where nothing is lost by it."""
    if isinstance(cell, str) and len(cell) <= 15:
        for kind in (int, float):
            try:
                number = kind(cell)
            except ValueError:
                continue
            if str(number) == cell and cell not in ("nan", "inf", "-inf"):
                return number
    return cell
