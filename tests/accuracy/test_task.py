"""Prompts against those of lm-eval, padding, and what data is refused."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.accuracy.examples import items, write_items
from tests.accuracy.test_scoring import GOLDEN
from upcurve.accuracy.items import Item, digest, read_items, read_splits
from upcurve.accuracy.problems import held_out
from upcurve.accuracy.task import (
    PROBLEMS_SEED,
    Prompt,
    Task,
    gsm8k,
    load_task,
    problems,
)
from upcurve.errors import InputError


def folder_of(tmp_path):
    for name in ("train", "test"):
        rows = [Item("", each["question"], each["answer"]) for each in GOLDEN[name]]
        write_items(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


def test_prompts_are_those_of_lm_eval(tmp_path):
    task = gsm8k(folder_of(tmp_path))
    assert [each.text for each in task.prompts()] == GOLDEN["prompts"]["train"]
    assert [each.messages for each in task.prompts()] == GOLDEN["prompts"]["chat"]
    assert list(task.stop) == GOLDEN["generation"]["until"]
    assert (task.shots, task.version) == (5, f"{GOLDEN['task_version']:g}")


def test_examples_of_a_single_file_are_those_of_lm_eval_with_one_split(tmp_path):
    task = gsm8k(folder_of(tmp_path) / "test.jsonl", shots=3)
    assert [each.text for each in task.prompts()] == GOLDEN["prompts"]["test"]


def test_a_limit_asks_the_first_prompts_of_all(tmp_path):
    folder = folder_of(tmp_path)
    assert gsm8k(folder, limit=2).prompts() == gsm8k(folder).prompts()[:2]


def test_parquet_as_it_is_published_reads_like_json_lines(tmp_path):
    folder = folder_of(tmp_path)
    other = tmp_path / "parquet"
    other.mkdir()
    for name in ("train", "test"):
        table = pyarrow.Table.from_pylist(GOLDEN[name])
        pyarrow.parquet.write_table(table, other / f"{name}-00000-of-00001.parquet")
    assert read_splits(other) == read_splits(folder)
    assert gsm8k(other).facts() == gsm8k(folder).facts()


def test_the_shipped_set_is_what_its_generator_draws():
    task = problems()
    drawn = held_out(2000, PROBLEMS_SEED)
    assert [(i.id, i.question, i.answer, i.target) for i in task.items] == [
        (p.id, p.question, p.answer, p.target) for p in drawn
    ]
    assert len({item.question for item in task.items}) == 2000
    first = task.prompts()[0]
    assert first.text == f"Question: {drawn[0].question}\nAnswer:"
    assert first.messages == [{"role": "user", "content": drawn[0].question}]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 4), st.integers(6, 30))
def test_padding_fills_up_to_a_length_and_never_shows_the_answer(characters, shots, count):
    given_items = tuple(items(count))
    task = Task("gsm8k", "3", given_items, given_items, True, shots)
    plain, padded = task.prompts(), task.prompts(characters)
    longest = max(len(Prompt((each,), "").text) for each in given_items)
    for item, short, long in zip(given_items, plain, padded, strict=True):
        assert long.text.endswith(short.text)
        assert item.question not in [each.question for each in long.examples]
        assert len(long.text) <= max(characters, len(short.text))
        if characters > len(short.text) + 2 * longest:
            assert len(long.text) > characters - longest


def test_items_of_several_files_are_numbered_on(tmp_path):
    for place, rows in enumerate((GOLDEN["test"][:2], GOLDEN["test"][2:])):
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, tmp_path / f"test-0000{place}-of-00002.parquet")
    items_, train = read_splits(tmp_path)
    assert [each.id for each in items_] == [str(number) for number in range(6)]
    assert [each.question for each in items_] == [each["question"] for each in GOLDEN["test"]]
    assert train is None


def test_facts_tell_data_apart():
    some = items(3)
    assert digest(some) == digest(list(some))
    assert digest(some) != digest(some[:2])
    assert digest(some) != digest([*some[:2], Item("9", some[2].question, "#### 7")])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds no item"),
        ("{", "line 1"),
        ('{"question": "a"}', "row 1 is no item"),
        ('{"question": "a", "answer": "42"}', "row 1 is no item"),
        ("[1]", "row 1 is no item"),
        (
            '{"id": 1, "question": "a", "answer": "#### 1"}\n'
            '{"id": "1", "question": "b", "answer": "#### 2"}',
            "has the id '1' twice",
        ),
        ('{"question": "a", "answer": "#### 1"}\n{"question": 1, "answer": "#### 2"}', "row 2"),
    ],
)
def test_bad_data_is_one_line(tmp_path, content, problem):
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=problem) as refused:
        read_items(path)
    assert refused.value.field == "data"
    assert "\n" not in str(refused.value)


def test_what_cannot_be_a_task_is_refused(tmp_path):
    path = write_items(tmp_path / "few.jsonl", items(3))
    with pytest.raises(InputError, match="5 examples of 3 items"):
        gsm8k(path)
    with pytest.raises(InputError, match="limit: 4 of 3 items; give 1 to 3"):
        gsm8k(path, limit=4, shots=1)
    with pytest.raises(InputError, match="none is named"):
        load_task("gsm8k")
    with pytest.raises(InputError, match="ships its own"):
        load_task("problems", path)
    with pytest.raises(InputError, match=r"has no test\.jsonl"):
        gsm8k(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        gsm8k(tmp_path / "nothing.jsonl")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="is no Parquet"):
        gsm8k(tmp_path / "bad.parquet")
    assert json.loads(path.read_text().splitlines()[0])["question"] == "What is 0 + 0?"
