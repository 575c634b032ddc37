"""The file of answers: appended whole, read back, resumed after any cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.accuracy.answers import AnswersFile, read_answers
from upcurve.errors import InputError

FACTS = {"task": "gsm8k", "concurrency": 4, "context": None}


def kept(folder, count=3):
    with AnswersFile.begin(folder, "some model/c4", FACTS) as file:
        for number in range(count):
            file.add({"id": str(number), "answer": f"{number}\n€"})
    return file.path


def test_what_was_added_is_read(tmp_path):
    path = kept(tmp_path / "answers")
    assert path.name.startswith("some_model_c4-")
    assert read_answers(path) == {
        str(number): {"id": str(number), "answer": f"{number}\n€"} for number in range(3)
    }


@given(cut=st.integers(0, 400))
def test_resuming_after_any_cut_keeps_every_whole_answer(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("answers")
    path = kept(folder)
    data = path.read_bytes()
    cut = min(cut, len(data))
    path.write_bytes(data[:cut])
    whole = data[:cut].count(b"\n")
    file = AnswersFile.resume(folder, FACTS)
    if not whole:
        assert file is None  # not even what was asked is known
        return
    with file:
        assert list(file.answers) == [str(number) for number in range(whole - 1)]
        file.add({"id": "next", "answer": "x"})
    assert list(read_answers(path)) == [*map(str, range(whole - 1)), "next"]


def test_only_a_file_of_the_same_facts_is_resumed(tmp_path):
    kept(tmp_path)
    assert AnswersFile.resume(tmp_path, FACTS | {"concurrency": 5}) is None
    assert AnswersFile.resume(tmp_path / "nowhere", FACTS) is None
    with AnswersFile.resume(tmp_path, FACTS) as file:
        assert len(file.answers) == 3


def test_a_later_answer_to_an_item_counts(tmp_path):
    path = kept(tmp_path, 1)
    with AnswersFile.resume(tmp_path, FACTS) as file:
        file.add({"id": "0", "answer": "again"})
    assert read_answers(path) == {"0": {"id": "0", "answer": "again"}}


def test_a_file_of_something_else_is_refused(tmp_path):
    other = tmp_path / "other.jsonl"
    for content in ("", "{}\n", "nothing\n", "[1]\n"):
        other.write_text(content)
        with pytest.raises(InputError, match="holds no answers"):
            read_answers(other)
    with pytest.raises(InputError, match="No such file"):
        read_answers(tmp_path / "gone.jsonl")


def test_a_folder_that_takes_no_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="make it writable"):
        AnswersFile.begin(tmp_path / "file", "x", FACTS)
