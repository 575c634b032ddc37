"""The text that ships with the small model is what its script writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from models.divergence_text import main
from upcurve.engine.fidelity.text import OF_THE_MODEL, read
from upcurve.engine.serve.tokenizer import ByteTokenizer

SMALL = Path(__file__).parents[2] / "models" / "small"


def test_the_shipped_text_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(SMALL / "tokenizer.json", tmp_path)
    monkeypatch.setattr("sys.argv", ["divergence_text", str(tmp_path)])
    main()
    assert (tmp_path / OF_THE_MODEL).read_bytes() == (SMALL / OF_THE_MODEL).read_bytes()


def test_it_is_problems_with_worked_answers() -> None:
    tokenizer = ByteTokenizer.from_folder(SMALL)
    assert tokenizer is not None
    passages = read(SMALL / OF_THE_MODEL, tokenizer, vocab_size=1152, context=4096, limit=64)
    assert len(passages) == 64
    for each in passages.values():
        ids = (*each.prompt, *each.output)
        text = b"".join(map(tokenizer.token_bytes, ids)).decode()
        question, _, answer = text.partition("\nAnswer: ")
        assert question.startswith("Question: ")
        assert "\n#### " in answer
