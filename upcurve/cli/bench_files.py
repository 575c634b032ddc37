"""Where a bench writes what it measured, beside the store."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from upcurve.errors import InputError
from upcurve.files import write_whole
from upcurve.load.session import Result
from upcurve.load.trace import to_table

FORMATS = ("json", "csv", "parquet")


@dataclass(frozen=True, slots=True)
class Destination:
    """A file, and by its name what it takes."""

    path: Path
    format: str


class SaveFile(click.ParamType[Destination]):
    """A file whose ending names its format."""

    name = "file"

    def convert(
        self,
        value: str | Destination,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Destination:
        """Look at the ending and the folder; fail with one line where either is wrong."""
        if isinstance(value, Destination):
            return value
        path = Path(value)
        ending = path.suffix.removeprefix(".").lower()
        if ending not in FORMATS:
            self.fail(f"{value!r} ends in none of .json, .csv, .parquet", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"{str(path.parent)!r} is no folder; make it first", param, ctx)
        return Destination(path, ending)


def save(
    file: Destination,
    points: Sequence[tuple[int, float, dict[str, Any]]],
    traces: Sequence[tuple[int, float, Result]],
) -> None:
    """Write a file, whole or not at all.

    JSON: a list of the objects that `--json` prints. CSV: the same, one line a point, nested
    names joined by dots. Parquet: one row per request, with the point's repeat and load.

    Raises:
        InputError: the file cannot be written.
    """
    rows = [{"repeat": repeat, **figures} for repeat, _, figures in points]
    write: Callable[[Any], object]
    if file.format == "parquet":
        write = partial(_write_requests, traces)
    else:
        text = json.dumps(rows, indent=2) + "\n" if file.format == "json" else _csv(rows)
        write = partial(_write_text, text)
    try:
        write_whole(file.path, write)
    except OSError as error:
        problem = f"{file.path} cannot be written ({error.strerror})"
        raise InputError("save", problem, "name another file") from error


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names joined by dots, and what is no object; lists as JSON."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield prefix + name, json.dumps(value)
        else:
            yield prefix + name, value


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    lines = [dict(flat(row)) for row in rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _write_text(text: str, file: Any) -> None:
    file.write(text.encode())


def _write_requests(traces: Sequence[tuple[int, float, Result]], file: Any) -> None:
    import pyarrow
    import pyarrow.parquet

    tables = []
    for repeat, level, result in traces:
        table = to_table(result.traces)
        table = table.add_column(0, "repeat", pyarrow.array([repeat] * len(table), pyarrow.int32()))
        loads = pyarrow.array([level] * len(table), pyarrow.float64())
        tables.append(table.add_column(1, "load", loads))
    if not tables:
        tables = [to_table([])]
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), file, compression="zstd")
