"""A file of rows, CSV or JSON, read into columns of cells that remember where they stood."""

from __future__ import annotations

import csv
import io
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from upcurve.errors import InputError
from upcurve.records.columns import COLUMNS, Problem


@dataclass(frozen=True, slots=True)
class Sheet:
    """Cells by column, all of one length; a missing cell is None."""

    columns: dict[str, list[Any]]
    places: array[int]
    """Line (from 1, as an editor counts) or item (from 1) of each row."""
    unit: str
    """What a place is: "line" or "item"."""
    problems: list[Problem]
    """Rows that could not be split into cells."""

    def __len__(self) -> int:
        return len(self.places)


def read(path: Path) -> Sheet:
    """Read a file; its first character says whether it is JSON or CSV.

    Raises:
        InputError: the file is missing, a folder, unreadable, empty, binary, not UTF-8, or neither.
    """
    text = _text(path)
    start = text.lstrip()[:1]
    if not start:
        raise InputError(str(path), "the file is empty", "export the rows again")
    return _from_json(path, text) if start in "[{" else _from_csv(path, text)


def _text(path: Path) -> str:
    if path.is_dir():
        raise InputError(str(path), "is a folder", "name a CSV or JSON file")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(str(path), "there is no such file", "check the name") from None
    except OSError as error:
        raise InputError(str(path), error.strerror or str(error), "make it readable") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(str(path), "the text is UTF-16", "save it as UTF-8")
    if b"\0" in data:
        raise InputError(str(path), "is no text file", "give CSV or JSON (save a workbook as CSV)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}", "the text is not UTF-8", "save the file as UTF-8"
        ) from error


def _from_csv(path: Path, text: str) -> Sheet:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a cell may hold the result of a run
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    problems: list[Problem] = []
    places: array[int] = array("q")
    try:
        header = next((row for row in reader if any(cell.strip() for cell in row)), [])
        names = _names(path, header)
        columns: list[list[str]] = [[] for _ in names]
        # Most cells repeat those above them: one object each keeps a large file small.
        seen: dict[str, str] = {}
        before = reader.line_num
        for row in reader:
            line, before = before + 1, reader.line_num
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            if len(row) != len(names):
                problem = f"the row has {len(row)} cells, the header {len(names)}"
                mend = "put cells with commas in double quotes, and leave unknown ones empty"
                problems.append(Problem(line, None, problem, mend))
                continue
            places.append(line)
            for column, cell in zip(columns, row, strict=True):
                column.append(seen.setdefault(cell, cell))
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}", str(error), "check the double quotes"
        ) from error
    if not places and not problems:
        raise InputError(str(path), "there is a header and no row", "export the rows again")
    return Sheet(dict(zip(names, columns, strict=True)), places, "line", problems)


def _names(path: Path, header: list[str]) -> list[str]:
    names = [cell.strip() for cell in header]
    for mark, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(names) == 1 and mark in names[0]:
            raise InputError(str(path), f"cells are separated by {word}", "save it with commas")
    for position, name in enumerate(names, start=1):
        if not name:
            raise InputError(
                f"{path}, column {position}", "the header has no name for it", "name or remove it"
            )
        if name in names[: position - 1]:
            raise InputError(f"{path}, column '{name}'", "it comes twice", "remove one of them")
    return names


def _from_json(path: Path, text: str) -> Sheet:
    return of_objects(path, *_json_rows(path, text))


def of_objects(path: Path | str, rows: Iterable[tuple[int, Any]], unit: str) -> Sheet:
    """Return (place, row object) as a sheet; what is no object becomes a problem.

    Raises:
        InputError: there are none.
    """
    problems: list[Problem] = []
    places: array[int] = array("q")
    kept: list[dict[str, Any]] = []
    for place, row in rows:
        if isinstance(row, dict):
            places.append(place)
            kept.append(_flattened(row))
        else:
            problems.append(Problem(place, None, "is no object", "write {column: value, ...}"))
    if not kept and not problems:
        raise InputError(str(path), "the list is empty", "export the rows again")
    names = dict.fromkeys(name for row in kept for name in row)
    columns = {name: [row.get(name) for row in kept] for name in names}
    return Sheet(columns, places, unit, problems)


def _json_rows(path: Path, text: str) -> tuple[list[tuple[int, Any]], str]:
    """Return (place, value) of each row of one JSON list or object, or of one object per line."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
        try:
            return [(number, orjson.loads(line)) for number, line in lines], "line"
        except orjson.JSONDecodeError:
            raise InputError(
                f"{path}, line {error.lineno}, character {error.colno}",
                f"is no JSON ({error.msg})",
                "give a list of objects, one per row",
            ) from error
    return list(enumerate(value if isinstance(value, list) else [value], start=1)), "item"


_KNOWN = {column.name for column in COLUMNS}
_MEDIANS = ("tpot_ms", "ttft_ms")


def _flattened(row: dict[str, Any]) -> dict[str, Any]:
    """Turn an object of `bench --json` into a row; other objects are rows already.

    A bench object holds the percentiles of a latency where a row holds its median.
    """
    if not any(isinstance(row.get(name), dict) for name in _MEDIANS):
        return row
    flat = {name: value for name, value in row.items() if name in _KNOWN}
    for name in _MEDIANS:
        if isinstance(row.get(name), dict):
            flat[name] = row[name].get("p50")
    return flat | {"source": row.get("source", "bench"), "result": row}
