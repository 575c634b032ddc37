"""Rows grouped into runs: one per all that is equal but parallelism, concurrency and metrics."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import orjson

from upcurve.records.columns import Problem
from upcurve.records.fingerprint import SpeedFacts, fingerprint
from upcurve.records.layout import LAYOUT
from upcurve.records.run import PointRecord, RunRecord

OF_RUN = (
    "series", "hardware", "engine", "engine_version", "image", "model", "precision", "source",
    "fingerprint", "started_at", "engine_commit", "change", "harness_version", "recipe", "host",
    "devices", "software",
)  # fmt: skip
"""Columns that say what a run is; rows that agree in them, in day and workload are one run."""


@dataclass(frozen=True, slots=True)
class Group:
    """One run of a file, with its points."""

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


def grouped(
    values: Mapping[str, list[Any]], extra: Mapping[str, list[Any]], places: Sequence[int]
) -> tuple[list[Group], list[Problem]]:
    """Return the runs of a file, and the rows that cannot be parts of one run.

    Args:
        values: column -> one value per row, for every known column.
        extra: unknown column -> one cell per row.
        places: line or item of each row.
    """
    days = [moment.date() for moment in values["measured_on"]]
    of_run = zip(*(_hashable(values[name]) for name in OF_RUN), strict=True)
    # Within a run, points are told apart by all sizes but how GPUs are parted.
    workload_columns = ("isl", "osl", "prefill_gpus", "decode_gpus")
    workloads = zip(days, *(values[name] for name in workload_columns), strict=True)
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
        groups.append(Group(values["run"][of[0]], _run(values, of), points))
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
    "isl", "osl", *LAYOUT, "concurrency",
    "tput_per_gpu", "interactivity",
    "input_tput_per_gpu", "output_tput_per_gpu", "tpot_ms", "ttft_ms", "requests", "failed",
    "accuracy",
)  # fmt: skip
_PLACE = ("isl", "osl", *LAYOUT, "concurrency")
"""What tells operating points of one run apart."""


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
        used = taken[tuple(row[name] for name in _PLACE)]
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
