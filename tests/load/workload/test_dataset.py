from __future__ import annotations

import json
import pickle

import numpy
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from upcurve.errors import InputError
from upcurve.load.workload import DatasetWorkload, parse_lengths


def lines(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


@pytest.fixture
def tokenizer(tmp_path):
    """Return a tokenizer that counts words."""
    made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def conversation(question, answer, **names):
    names = {"human": "human", "gpt": "gpt"} | names
    return {
        "conversations": [
            {"from": names["human"], "value": question},
            {"from": names["gpt"], "value": answer},
            {"from": "human", "value": "and later"},
        ]
    }


def test_lines_of_every_kind(tmp_path):
    rows = [
        {"prompt": "what is it", "output_tokens": 5},
        {"token_ids": [4, 5, 6], "max_tokens": 7},
        {"messages": [{"role": "user", "content": "hi"}]},
    ]
    workload = DatasetWorkload.load(lines(tmp_path / "d.jsonl", rows), seed=1)
    prompts = [workload.prompt("measured", index) for index in range(3)]
    found = {type(each.content): each for each in prompts}
    assert found[str].content == "what is it"
    assert (found[str].input_tokens, found[str].output_tokens) == (None, 5)
    assert found[numpy.ndarray].content.tolist() == [4, 5, 6]
    assert (found[numpy.ndarray].input_tokens, found[numpy.ndarray].output_tokens) == (3, 7)
    assert found[list].content == [{"role": "user", "content": "hi"}]
    assert not workload.exact_output  # one answer may end by itself


def test_conversations(tmp_path, tokenizer):
    rows = [
        conversation("one two three", "four five"),
        conversation("six", "seven eight nine", human="user", gpt="assistant"),
        {"conversations": [{"from": "gpt", "value": "nobody asked"}]},
    ]
    file = tmp_path / "s.json"
    file.write_text(json.dumps(rows))
    workload = DatasetWorkload.load(file, tokenizer=tokenizer)
    found = {each.content: (each.input_tokens, each.output_tokens) for each in workload.entries}
    assert found == {"one two three": (3, 2), "six": (1, 3)}
    assert workload.exact_output
    assert (workload.isl, workload.osl) == (2, 2)
    fixed = DatasetWorkload.load(file, osl=parse_lengths("64", "osl"))
    assert {fixed.prompt("measured", index).output_tokens for index in range(2)} == {64}


def test_the_order_is_seeded_and_each_prompt_comes_once(tmp_path):
    file = lines(tmp_path / "d.jsonl", [{"prompt": f"p{n}", "max_tokens": 2} for n in range(40)])
    first, other = (DatasetWorkload.load(file, seed=seed) for seed in (1, 2))
    order = [first.prompt("measured", index).content for index in range(40)]
    assert sorted(order) == sorted(f"p{n}" for n in range(40))
    assert order != [other.prompt("measured", index).content for index in range(40)]
    again = pickle.loads(pickle.dumps(first))
    assert [again.prompt("measured", index).content for index in range(40)] == order
    # Warm-up takes from the other end: of a file that is larger than the load, other prompts.
    warm = {first.prompt("warm-up", index).content for index in range(8)}
    assert not warm & set(order[:30])
    assert first.content_hash() == again.content_hash() != other.content_hash()


def test_more_requests_than_prompts(tmp_path):
    file = lines(tmp_path / "d.jsonl", [{"prompt": f"p{n}", "max_tokens": 2} for n in range(4)])
    with pytest.raises(InputError, match=r"5 requests, and d.jsonl has 4 prompts"):
        DatasetWorkload.load(file).require(5)
    repeating = DatasetWorkload.load(file, repeat=True)
    repeating.require(5)
    contents = [repeating.prompt("measured", index).content for index in range(8)]
    assert contents[:4] == contents[4:]
    assert "repeated" in repeating.facts()["prompts"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no prompt"),
        ("[]", "holds no prompt"),
        ('{"prompt": "a"}\nno json\n', "line 2 is no prompt"),
        ('{"other": 3}', "line 1 is no prompt"),
        ('{"prompt": ""}', "line 1 is no prompt"),
        ('{"prompt": 5}', "line 1 is no prompt"),
        ('{"prompt": "a", "token_ids": [1]}', "line 1 is no prompt"),
        ('{"token_ids": [1, -2]}', "line 1 is no prompt"),
        ('{"messages": ["hi"]}', "line 1 is no prompt"),
        ('{"prompt": "a", "max_tokens": 0}', "line 1 is no prompt"),
        ("[1, 2]", "no ShareGPT file"),
        ('[{"conversations": [{"from": "human"}, {"from": "gpt"}]}]', "no ShareGPT file"),
    ],
)
def test_bad_files_are_one_line(tmp_path, text, says):
    file = tmp_path / "d"
    file.write_text(text)
    with pytest.raises(InputError, match="dataset: ") as error:
        DatasetWorkload.load(file)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        DatasetWorkload.load(tmp_path / "nowhere")
