from __future__ import annotations

import hashlib
import json
import pickle

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from upcurve.errors import InputError
from upcurve.load.workload import DatasetWorkload, parse_lengths

PHASES = ("measured", "warm-up", "probe")


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="prompts.jsonl"):
        file = tmp_path / name
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return file

    return write


@pytest.fixture
def write_conversations(tmp_path):
    def write(*conversations):
        file = tmp_path / "conversations.json"
        turns = [
            {"conversations": [{"from": who, "value": text} for who, text in each]}
            for each in conversations
        ]
        file.write_text(json.dumps(turns))
        return file

    return write


@pytest.fixture
def tokenizer(tmp_path):
    """Return a file whose tokens are words."""
    vocabulary = {"[UNK]": 0} | {f"w{number}": number for number in range(1, 50)}
    found = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found.enable_truncation(3)
    (tmp_path / "words").mkdir()
    found.save(str(tmp_path / "words" / "tokenizer.json"))
    return tmp_path / "words"


def prompts(count):
    return [{"prompt": f"prompt {number}", "output_tokens": number + 1} for number in range(count)]


def contents(workload, phase, count):
    return [workload.prompt(phase, index).content for index in range(count)]


def measurable(workload):
    """Return how many requests `require` lets through."""
    count = 0
    while True:
        try:
            workload.require(count + 1)
        except InputError:
            return count
        count += 1


@settings(max_examples=30, deadline=None)
@given(count=st.integers(3, 60), seed=st.integers(0, 2**32), salt=st.text(max_size=3))
def test_no_prompt_is_measured_twice_or_after_another_phase(tmp_path_factory, count, seed, salt):
    file = tmp_path_factory.getbasetemp() / "many.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in prompts(count)))
    workload = DatasetWorkload.load(file, seed=seed).salted(salt)
    most = measurable(workload)
    assert 1 <= most < count
    assert most >= count - count // 8 - 2
    measured = contents(workload, "measured", most)
    assert len(set(measured)) == most
    sent_before = {*contents(workload, "warm-up", 100), *contents(workload, "probe", 3)}
    assert not sent_before & set(measured)
    assert not {*contents(workload, "warm-up", 100)} & {*contents(workload, "probe", 3)}
    assert {*measured, *sent_before} <= {row["prompt"] for row in prompts(count)}


def test_each_prompt_keeps_its_own_output_length(write):
    workload = DatasetWorkload.load(write(*prompts(40)))
    for index in range(30):
        prompt = workload.prompt("measured", index)
        assert prompt.output_tokens == int(prompt.content.split()[1]) + 1
        assert prompt.input_tokens is None
    assert workload.exact_output
    assert workload.osl == round(sum(range(1, 41)) / 40)


def test_the_order_is_seeded_and_survives_pickling(write):
    file = write(*prompts(100))
    first = contents(DatasetWorkload.load(file, seed=1), "measured", 50)
    assert first == contents(DatasetWorkload.load(file, seed=1), "measured", 50)
    assert first != contents(DatasetWorkload.load(file, seed=2), "measured", 50)
    assert first != contents(DatasetWorkload.load(file, seed=1).after(40), "measured", 50)
    copy = pickle.loads(pickle.dumps(DatasetWorkload.load(file, seed=1)))
    assert first == contents(copy, "measured", 50)
    assert copy.content_hash() == DatasetWorkload.load(file, seed=1).content_hash()


def test_golden_order(write):
    workload = DatasetWorkload.load(write(*prompts(20)), seed=7)
    assert contents(workload, "measured", 5) == [
        "prompt 17",
        "prompt 15",
        "prompt 11",
        "prompt 18",
        "prompt 7",
    ]
    assert contents(workload, "warm-up", 3) == ["prompt 4", "prompt 12", "prompt 4"]
    assert contents(workload, "probe", 1) == ["prompt 10"]


def test_kinds_of_prompts(write):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    file = write(
        {"prompt": "text"},
        {"messages": messages, "max_tokens": 5},
        {"token_ids": [3, 0, 2**32 - 1], "output_tokens": 6, "max_tokens": 9},
    )
    workload = DatasetWorkload.load(file, repeat=True)
    found = {
        type(each.content): each for each in (workload.prompt("measured", i) for i in range(3))
    }
    assert found[str].content == "text"
    assert found[str].output_tokens is None
    assert found[list].content == messages
    assert (found[list].input_tokens, found[list].output_tokens) == (None, 5)
    ids = found[numpy.ndarray]
    assert ids.content.dtype == numpy.uint32
    assert ids.content.tolist() == [3, 0, 2**32 - 1]
    assert (ids.input_tokens, ids.output_tokens) == (3, 6)
    assert not workload.exact_output


def test_lengths_that_are_asked_for_take_the_place_of_the_files(write):
    workload = DatasetWorkload.load(
        write(*prompts(40)), osl=parse_lengths("uniform:0.5:900", "osl")
    )
    asked = [workload.prompt("measured", index).output_tokens for index in range(30)]
    assert all(450 <= each <= 900 for each in asked)
    assert len(set(asked)) > 10
    assert asked == [workload.prompt("measured", index).output_tokens for index in range(30)]
    assert (workload.osl, workload.exact_output) == (900, True)


def test_a_tokenizer_counts_text_in_full(write, tokenizer):
    workload = DatasetWorkload.load(
        write({"prompt": "w1 w2 w3 w4 w5"}), tokenizer=tokenizer, repeat=True
    )
    assert workload.prompt("measured", 0).input_tokens == 5
    assert workload.isl == 5


def test_the_first_answered_turn_of_a_conversation(write_conversations, tokenizer):
    file = write_conversations(
        [
            ("system", "w9"),
            ("human", "w1 w2"),
            ("gpt", "w3 w4 w5 w6"),
            ("human", "w7"),
            ("gpt", "w8"),
        ],
        [("gpt", "w1"), ("human", "w2 w3 w4"), ("gpt", "w5")],
        [("human", "never answered")],
        [("human", ""), ("gpt", "w1")],
        [],
    )
    workload = DatasetWorkload.load(file, tokenizer=tokenizer, repeat=True)
    found = {
        (each.content, each.input_tokens, each.output_tokens)
        for each in (workload.prompt("measured", index) for index in range(20))
    }
    assert found == {("w1 w2", 2, 4), ("w2 w3 w4", 3, 1)}
    assert workload.facts()["dataset"]["format"] == "sharegpt"


def test_conversations_need_an_output_length(write_conversations):
    file = write_conversations(*[[("human", f"q{n}"), ("gpt", "a")] for n in range(5)])
    with pytest.raises(InputError, match="give --osl") as error:
        DatasetWorkload.load(file)
    assert error.value.field == "osl"
    workload = DatasetWorkload.load(file, osl=parse_lengths("7", "osl"))
    assert workload.prompt("measured", 0).output_tokens == 7


def test_too_few_prompts(write):
    workload = DatasetWorkload.load(write(*prompts(10)))
    workload.require(8)
    with pytest.raises(InputError, match=r"9 requests, and prompts\.jsonl has 8") as error:
        workload.require(9)
    assert error.value.field == "dataset"
    repeated = DatasetWorkload.load(write(*prompts(10)), repeat=True)
    repeated.require(1000)
    assert {*contents(repeated, "measured", 10)} == {row["prompt"] for row in prompts(10)}
    assert repeated.facts()["prompts"] == "dataset prompts.jsonl, repeated"


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_for_all_phases(write, count):
    workload = DatasetWorkload.load(write(*prompts(count)))
    with pytest.raises(InputError, match="0 prompts to measure"):
        workload.require(1)


def test_the_same_prompt_twice_is_one(write):
    file = write(*prompts(10), *prompts(10))
    assert len(DatasetWorkload.load(file).entries) == 10
    assert len(DatasetWorkload.load(file, repeat=True).entries) == 20


def test_a_limit_keeps_a_drawn_part(write):
    file = write(*prompts(100))
    few = DatasetWorkload.load(file, limit=20, seed=3)
    assert len(few.entries) == 20
    drawn = {each.content for each in few.entries}
    assert drawn <= {row["prompt"] for row in prompts(100)}
    assert drawn != {row["prompt"] for row in prompts(20)}
    assert few.content_hash() != DatasetWorkload.load(file, seed=3).content_hash()
    with pytest.raises(InputError, match="limit"):
        DatasetWorkload.load(file, limit=0)


def test_the_hash_knows_every_fact(write, tokenizer):
    file = write(*prompts(20))
    variants = [
        DatasetWorkload.load(file),
        DatasetWorkload.load(file, seed=1),
        DatasetWorkload.load(file, repeat=True),
        DatasetWorkload.load(file, osl=parse_lengths("5", "osl")),
        DatasetWorkload.load(file, tokenizer=tokenizer),
        DatasetWorkload.load(file, limit=19),
        DatasetWorkload.load(file).salted("a"),
        DatasetWorkload.load(write(*prompts(21), name="other.jsonl")),
    ]
    assert len({each.content_hash() for each in variants}) == len(variants)
    assert variants[0].content_hash() == DatasetWorkload.load(file).content_hash()
    facts = variants[0].facts()
    assert facts["dataset"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert json.loads(json.dumps(facts)) == facts


def test_blank_lines_and_line_ends(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b'\n{"prompt": "a"}\r\n\r\n  {"prompt": "b\\u2028c"}\n{"prompt": "d"}')
    workload = DatasetWorkload.load(file, repeat=True)
    assert {*contents(workload, "measured", 3)} == {"a", "b\u2028c", "d"}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "3",
        "null",
        '"text"',
        "{}",
        '{"prompt": ""}',
        '{"prompt": 3}',
        '{"prompt": "a", "messages": [{"role": "user"}]}',
        '{"messages": []}',
        '{"messages": ["hello"]}',
        '{"messages": [{"content": "hello"}]}',
        '{"token_ids": [1, -1]}',
        '{"token_ids": [1, true]}',
        '{"token_ids": [1, 2.0]}',
        '{"token_ids": [4294967296]}',
        '{"prompt": "a", "output_tokens": 0}',
        '{"prompt": "a", "max_tokens": "5"}',
        '{"prompt": "a", "max_tokens": true}',
    ],
)
def test_bad_lines_are_named(tmp_path, line):
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "good"}}\n\n{line}\n{{"prompt": "good too"}}\n')
    with pytest.raises(InputError, match="line 3 is no prompt") as error:
        DatasetWorkload.load(file, format="jsonl")
    assert error.value.field == "dataset"
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[", "no ShareGPT file"),
        ("{}", "no ShareGPT file"),
        ("[3]", "entry 1 is no conversation"),
        ('[{"conversations": []}, {"conversations": [{"from": "human"}, {}]}]', "entry 2"),
        ('[{"conversations": [{"from":"human","value":3},{"from":"gpt","value":"a"}]}]', "entry 1"),
        ("[]", "holds no prompt"),
    ],
)
def test_bad_conversations(tmp_path, content, problem):
    file = tmp_path / "conversations.json"
    file.write_text(content)
    with pytest.raises(InputError, match=problem) as error:
        DatasetWorkload.load(file, format="sharegpt", osl=parse_lengths("5", "osl"))
    assert "\n" not in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="name a file"):
        DatasetWorkload.load(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no prompt"):
        DatasetWorkload.load(tmp_path / "empty.jsonl")


def test_kinds_of_files_are_told_apart(write, write_conversations):
    osl = parse_lengths("5", "osl")
    assert DatasetWorkload.load(write(*prompts(3)), osl=osl).form == "jsonl"
    assert (
        DatasetWorkload.load(write_conversations([("human", "q"), ("gpt", "a")]), osl=osl).form
        == "sharegpt"
    )
