"""One word problem, and files of them: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from upcurve.errors import InputError
from upcurve.files import write_whole

MARK = "#### "
"""Before the final answer, on a line of its own, as in GSM8K."""
FIELDS = ("id", "question", "answer", "target")


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, its worked answer and the number that counts."""

    id: str
    question: str
    answer: str
    """Worked steps, one a line, and a last line "#### N"."""
    target: str
    """N: a whole number in digits, without separators."""
    template: str = ""
    """The story and the wording of every sentence of the question, numbers and names apart."""


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """Write a JSONL file with the keys id, question, answer, target and template; atomic."""
    lines = [json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems]
    write_whole(path, lambda file: file.write("".join(lines).encode()))


def read_problems(path: Path) -> list[Problem]:
    """Read a JSONL file of problems; keys beyond a problem's own are ignored.

    Raises:
        InputError: the file cannot be read, or a line lacks a field; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("problems", f"cannot read {path}: {error}", "give a JSONL file") from error
    return [_problem(path, number, line) for number, line in enumerate(text.splitlines(), 1)]


def _problem(path: Path, number: int, line: str) -> Problem:
    try:
        value = json.loads(line)
        fields = [value[name] for name in FIELDS]
        if not all(isinstance(field, str) for field in fields):
            raise TypeError("a field is not text")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            "problems",
            f"{path} line {number}: {error}",
            f"each line is an object with the texts {', '.join(FIELDS)}",
        ) from error
    name, question, answer, target = fields
    return Problem(name, question, answer, target, str(value.get("template", "")))
