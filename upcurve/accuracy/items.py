"""Questions with worked answers, from JSON lines or Parquet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet

from upcurve.errors import InputError

MARK = "#### "
"""What stands before the final answer, as in GSM8K."""

_MEND = "give JSON lines or Parquet with the texts question and answer, answer ending in '#### N'"


@dataclass(frozen=True, slots=True)
class Item:
    """One question and its worked answer, whose last line is `#### N`."""

    id: str
    question: str
    answer: str

    @property
    def target(self) -> str:
        """The final answer, as it is written."""
        return self.answer.rpartition(MARK)[2].strip()


def read_items(path: Path, first: int = 0) -> list[Item]:
    """Read a file of items: rows with `question` and `answer`, and `id` where they have one.

    Args:
        path: JSON lines, or Parquet by its name.
        first: number of the first row; it is the id of a row without one.

    Raises:
        InputError: the file cannot be read, holds nothing, or a row is no item; names the row.
    """
    try:
        rows = _parquet(path) if path.suffix == ".parquet" else _lines(path)
        items = [_item(path, number, row, first) for number, row in enumerate(rows)]
    except OSError as error:
        raise InputError("data", f"{path}: {error.strerror or error}", "name a file") from error
    if not items:
        raise InputError("data", f"{path} holds no item", _MEND)
    return _distinct(path, items)


def read_splits(path: Path) -> tuple[list[Item], list[Item] | None]:
    """Read what is asked, and what examples are drawn from where there is a file of them.

    Args:
        path: a file of items, whose neighbours give no examples; or a folder with `test` and
            `train`, as GSM8K is published: `test.jsonl` or `test-00000-of-00001.parquet`.

    Raises:
        InputError: as `read_items`, or the folder has no `test`.
    """
    if not path.is_dir():
        return read_items(path), None
    tests, train = _split(path, "test"), _split(path, "train")
    if not tests:
        problem = f"{path} has no test.jsonl or test*.parquet"
        raise InputError("data", problem, "name the file itself")
    return _joined(path, tests), _joined(path, train) or None


def digest(items: Sequence[Item]) -> str:
    """Return the SHA-256, in hex, of questions and answers in their order."""
    found = hashlib.sha256()
    for item in items:
        found.update(orjson.dumps([item.question, item.answer]) + b"\n")
    return found.hexdigest()


def _joined(folder: Path, paths: Sequence[Path]) -> list[Item]:
    items: list[Item] = []
    for path in paths:
        items += read_items(path, len(items))
    return _distinct(folder, items)


def _distinct(path: Path, items: list[Item]) -> list[Item]:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise InputError("data", f"{path} has the id {item.id!r} twice", "number its items")
        seen.add(item.id)
    return items


def _split(folder: Path, name: str) -> list[Path]:
    whole = folder / f"{name}.jsonl"
    return [whole] if whole.is_file() else sorted(folder.glob(f"{name}*.parquet"))


def _lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InputError("data", f"{path}, line {number}: {error}", _MEND) from error


def _parquet(path: Path) -> list[Any]:
    try:
        rows: list[Any] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise InputError("data", f"{path} is no Parquet ({error})", _MEND) from error
    return rows


def _item(path: Path, number: int, row: Any, first: int) -> Item:
    found = row if isinstance(row, dict) else {}
    question, answer = found.get("question"), found.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str) or MARK not in answer:
        raise InputError("data", f"{path}, row {number + 1} is no item", _MEND)
    return Item(str(found.get("id", first + number)), question, answer)
