"""Rows of a store written as CSV or JSON, in the form that `upcurve import` reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson

from upcurve.errors import InputError
from upcurve.files import write_whole
from upcurve.records.columns import COLUMNS
from upcurve.records.reader import StoreReader

Form = Literal["csv", "json"]

NAMES = tuple(column.name for column in COLUMNS)


def write(
    store: StoreReader, file: BinaryIO, form: Form, series: Sequence[str] | None = None
) -> int:
    """Write the rows of the named series, or of all, and return how many there are.

    Text stands as it was recorded: a name that begins with "=" is a formula to a spreadsheet.
    """
    rows = store.rows(series)
    pieces = _csv(rows) if form == "csv" else _json(rows)
    file.write(next(pieces))
    count = 0
    for piece in pieces:
        file.write(piece)
        count += 1
    if form == "json":
        file.write(b"\n]\n")
    return count


def write_file(
    store: StoreReader, path: Path, form: Form, series: Sequence[str] | None = None
) -> int:
    """Write as `write` does, into a file that is replaced whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    if path.is_dir():
        raise InputError("output", f"{path} is a folder", "name a file")
    counts: list[int] = []
    try:
        write_whole(path, lambda file: counts.append(write(store, file, form, series)))
    except OSError as error:
        raise InputError(
            "output", f"{path}: {error.strerror or error}", "name a file in a folder you can write"
        ) from error
    return counts[0]


def _csv(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")

    def line(cells: Sequence[Any]) -> bytes:
        writer.writerow(cells)
        piece = text.getvalue().encode()
        text.seek(0)
        text.truncate()
        return piece

    yield line(NAMES)
    for row in rows:
        yield line([_cell(row[name]) for name in NAMES])


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode() if value else ""
    return _moment(value) if isinstance(value, datetime) else value


def _json(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    yield b"["
    for number, row in enumerate(rows):
        plain = {
            name: _moment(value) if isinstance(value, datetime) else value
            for name, value in row.items()
        }
        yield (b",\n" if number else b"\n") + orjson.dumps(plain)


def _moment(moment: datetime) -> str:
    """Return the day where only the day is known, else the moment."""
    midnight = (moment.hour, moment.minute, moment.second, moment.microsecond) == (0, 0, 0, 0)
    return moment.date().isoformat() if midnight else moment.isoformat()
