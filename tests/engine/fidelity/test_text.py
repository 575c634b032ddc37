"""The text that is compared: files of every kind, right and wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.model.oracle import tiny_config
from upcurve.engine.errors import EngineInputError
from upcurve.engine.fidelity.forced import Passage
from upcurve.engine.fidelity.text import DRAWN_OUTPUT, drawn, text_of
from upcurve.engine.model.checkpoint import write_checkpoint
from upcurve.engine.serve.tokenizer import ByteTokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, tiny_config(), seed=0)
    return folder


def lines(path: Path, *values: Any) -> Path:
    path.write_text("\n".join(json.dumps(each) for each in values) + "\n\n")
    return path


def read(folder: Path, file: Path | None, limit: int | None = None) -> dict[str, Passage]:
    return text_of(folder, file, vocab_size=300, context=64, limit=limit)[0]


def test_token_ids_are_taken_as_they_are(folder: Path, tmp_path: Path) -> None:
    file = lines(
        tmp_path / "ids.jsonl",
        {"id": "first", "prompt": [1, 2], "output": [3]},
        {"prompt": [4], "output": [5, 6]},
    )
    found = read(folder, file)
    assert found == {"first": Passage([1, 2], [3]), "2": Passage([4], [5, 6])}
    assert found["2"].seen == [4, 5]
    assert list(read(folder, file, limit=1)) == ["first"]


def test_a_problem_is_a_prompt_of_gsm8k_and_its_worked_answer(folder: Path, tmp_path: Path) -> None:
    problem = {"id": "p", "question": "1 and 1?", "answer": "1+1=2\n#### 2", "target": "2"}
    (found,) = read(folder, lines(tmp_path / "problems.jsonl", problem)).values()
    tokenizer = ByteTokenizer.from_folder(folder)
    assert tokenizer is not None
    text = b"".join(tokenizer.token_bytes(each) for each in (*found.prompt, *found.output))
    assert text == b"Question: 1 and 1?\nAnswer: 1+1=2\n#### 2"
    assert found.prompt == tokenizer.encode("Question: 1 and 1?\nAnswer:", add_special_tokens=True)


def test_without_a_file_the_models_own_text_is_taken_where_it_has_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tiny_config(), seed=0)
    found, title = text_of(tmp_path, None, vocab_size=300, context=64)
    assert title == "tokens drawn by a seed"
    assert found == drawn(300, context=64)
    lines(tmp_path / "divergence.jsonl", {"prompt": [7], "output": [8]})
    found, title = text_of(tmp_path, None, vocab_size=300, context=64)
    assert (found, title) == ({"1": Passage([7], [8])}, "divergence.jsonl")


def test_drawn_passages_fit_and_are_the_same_each_time() -> None:
    found = drawn(300, context=40)
    assert found == drawn(300, context=40)
    assert all(len(each.prompt) + len(each.output) <= 40 for each in found.values())
    assert {len(each.output) for each in found.values()} == {DRAWN_OUTPUT}
    assert len(drawn(300, context=40, limit=3)) == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"prompt": [1]}, "line 1 of text.jsonl: 'output'"),
        ({"prompt": [1], "output": "text"}, "not both texts, or both lists"),
        ({"prompt": [1], "output": [True]}, "not both texts, or both lists"),
        ({"prompt": [], "output": [1]}, "prompt or output is empty"),
        ({"prompt": [1], "output": [300]}, r"not in 0\.\.299"),
        ({"prompt": [1] * 60, "output": [1] * 5}, "has 65 tokens, the context is 64"),
        ([1], "not an object"),
    ],
)
def test_a_line_that_does_not_do_is_named(
    folder: Path, tmp_path: Path, value: Any, message: str
) -> None:
    with pytest.raises(EngineInputError, match=message):
        read(folder, lines(tmp_path / "text.jsonl", value))


def test_files_that_do_not_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineInputError, match="give a file of JSON lines"):
        read(folder, tmp_path / "missing.jsonl")
    (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(EngineInputError, match="line 1 of"):
        read(folder, tmp_path / "broken.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(EngineInputError, match="has no line"):
        read(folder, tmp_path / "empty.jsonl")
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(EngineInputError, match=r"no tokenizer\.json"):
        read(bare, lines(tmp_path / "text.jsonl", {"prompt": "a", "output": "b"}))
