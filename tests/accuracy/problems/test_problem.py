from __future__ import annotations

import json
from pathlib import Path

import pytest

from upcurve.accuracy.problems import held_out, read_problems, write_problems
from upcurve.errors import InputError


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    problems = held_out(20, 1)
    write_problems(tmp_path / "held.jsonl", problems)
    assert read_problems(tmp_path / "held.jsonl") == problems
    first = json.loads((tmp_path / "held.jsonl").read_text().splitlines()[0])
    assert set(first) == {"id", "question", "answer", "target", "template"}


@pytest.mark.parametrize(
    "line", ["", "[]", "{", '{"id": "a", "question": "b", "answer": "c"}', '{"id": 1}']
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "held.jsonl"
    write_problems(path, held_out(1, 1))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match="line 2"):
        read_problems(path)


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_problems(tmp_path / "none.jsonl")
