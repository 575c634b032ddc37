"""The prompts that `upcurve bench` sends: drawn, made of text or read from a file."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.cli.test_bench_modes import FAST, LENGTHS, bench
from upcurve.load.known_server import known_server_process


@pytest.fixture(scope="module")
def server():
    with known_server_process(FAST) as (base_url, _):
        yield base_url


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Return the folder of a small byte-level BPE."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    words = [a + b + c for a in "bcdfghkl" for b in "aeiou" for c in "mnrst"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([" ".join(words)] * 5, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save(str(folder / "tokenizer.json"))
    return folder


def test_lengths_from_distributions(capsys, server):
    words = ("--isl", "uniform:0.5:40", "--osl", "histogram:4=1,9=1", "--requests", 30)
    code, (point,), err = bench(capsys, server, *words, "--concurrency", 3)
    assert code == 0, err
    assert (point["isl"], point["output_length_ok"]) == (40, True)
    assert 20 <= point["input_tokens"]["min"] < point["input_tokens"]["max"] <= 40
    assert (point["output_tokens"]["min"], point["output_tokens"]["max"]) == (4, 9)


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_text_of_exact_length(capsys, server, tokenizer, endpoint):
    words = ("--tokenizer", tokenizer, "--endpoint", endpoint, *LENGTHS, "--concurrency", 2)
    code, (point,), err = bench(capsys, server, *words)
    assert code == 0, err
    # The server of known timing counts words; each of ours is one token.
    assert (point["input_tokens"]["min"], point["input_tokens"]["max"]) == (16, 16)
    assert point["output_length_ok"]


def test_a_dataset(capsys, server, tmp_path):
    file = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "word " * n, "max_tokens": 3 + n % 4} for n in range(1, 21)]
    file.write_text("\n".join(map(json.dumps, rows)))
    words = ("--dataset", file, "--concurrency", 3, "--seed", 1)
    code, (point,), err = bench(capsys, server, *words)
    assert code == 0, err
    assert point["requests"] == 12
    assert 1 <= point["input_tokens"]["min"] < point["input_tokens"]["max"] <= 20
    assert (point["output_tokens"]["min"], point["output_tokens"]["max"]) == (3, 6)
    words = ("--dataset", file, "--concurrency", 5)
    code, _, err = bench(capsys, server, *words)
    assert (code, "20 requests" in err, "--dataset-repeat" in err) == (2, True, True)
    assert bench(capsys, server, *words, "--dataset-repeat")[0] == 0


def test_what_a_dataset_cannot_be_used_for(capsys, server, tmp_path):
    text, ids = tmp_path / "text.jsonl", tmp_path / "ids.jsonl"
    text.write_text("\n".join(json.dumps({"prompt": f"word {n}"}) for n in range(99)))
    ids.write_text(json.dumps({"token_ids": [1, 2], "max_tokens": 3}))
    for file, words, says in (
        (ids, ("--endpoint", "chat"), "has prompts of token ids, and chat takes none"),
        (text, ("--duration", 1), "nobody knows how many of its 99 prompts"),
        (text, ("--series", "mine"), "a series is kept by its input length"),
    ):
        code, _, err = bench(capsys, server, "--dataset", file, "--concurrency", 1, *words)
        assert (code, says in err, err.count("\n")) == (2, True, 1), err
