from __future__ import annotations

import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from upcurve.errors import InputError
from upcurve.load.workload import SharedPrefix, TextWorkload, parse_lengths

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
KINDS = ("byte-level", "metaspace", "unigram", "word-piece")


def corpus():
    rng = random.Random(5)
    words = ["".join(rng.choices(ALPHABET[:9], k=rng.randint(2, 6))) for _ in range(150)]
    return [" ".join(rng.choices(words, k=40)) for _ in range(300)]


def tokenizer_of(kind):
    """Return a tokenizer trained on few words, as the common families are built."""
    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False)
    elif kind == "word-piece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(
            vocab_size=600, special_tokens=["[UNK]"], show_progress=False
        )
    else:
        unigram = kind == "unigram"
        tokenizer = Tokenizer(models.Unigram() if unigram else models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = (
            trainers.UnigramTrainer(vocab_size=400, show_progress=False)
            if unigram
            else trainers.BpeTrainer(vocab_size=600, show_progress=False)
        )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory):
    file = tmp_path_factory.mktemp(request.param) / "tokenizer.json"
    tokenizer = tokenizer_of(request.param)
    tokenizer.save(str(file))
    return file, tokenizer


def count(tokenizer, text):
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def load(file, isl="64", osl="8", **settings):
    return TextWorkload.load(file, parse_lengths(isl, "isl"), parse_lengths(osl, "osl"), **settings)


@pytest.mark.parametrize(
    "isl", ["1", "17", "2048", "uniform:0.2:300", "normal:100:60", "histogram:3=1,90=2"]
)
def test_the_tokenizer_counts_what_was_asked(trained, isl):
    file, tokenizer = trained
    workload = load(file, isl, seed=3)
    for phase in ("measured", "warm-up", "probe"):
        for index in range(4):
            prompt = workload.prompt(phase, index)
            assert count(tokenizer, prompt.content) == prompt.input_tokens
            # A space leads where the tokenizer adds none itself, and only there.
            assert prompt.content.startswith(" ") == (workload.lead == " ")
            assert workload.tokens.input_length.minimum <= prompt.input_tokens
            assert prompt.input_tokens <= workload.tokens.input_length.maximum
            assert prompt.output_tokens == 8


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    salt=st.text(max_size=3),
    index=st.integers(0, 10**6),
    length=st.integers(1, 400),
)
def test_counts_are_exact_whatever_is_drawn(trained, seed, salt, index, length):
    file, tokenizer = trained
    prompt = load(file, str(length), seed=seed).salted(salt).prompt("measured", index)
    assert count(tokenizer, prompt.content) == length == prompt.input_tokens


def test_every_pair_of_words_is_two_tokens(trained):
    file, tokenizer = trained
    workload = load(file)
    words = workload.words[:60]
    assert len(words) >= 16
    pairs = [f"{workload.lead}{one} {other}" for one in words for other in words]
    encoded = tokenizer.encode_batch(pairs, add_special_tokens=False)
    assert {len(each.ids) for each in encoded} == {2}


def test_prompts_are_distinct_and_the_same_again_after_pickling(trained):
    file, _ = trained
    workload = load(file, "12")
    phases = ("measured", "warm-up", "probe")
    texts = [workload.prompt(phase, index).content for phase in phases for index in range(200)]
    assert len(set(texts)) == len(texts)
    copy = pickle.loads(pickle.dumps(workload))
    assert copy == workload
    assert texts == [copy.prompt(phase, index).content for phase in phases for index in range(200)]
    other = [workload.salted("b").prompt("measured", index).content for index in range(200)]
    assert not set(other) & set(texts)
    assert not {each[:40] for each in other} & {each[:40] for each in texts}


def test_shared_prefixes_are_tokens_too(trained):
    file, tokenizer = trained
    workload = load(file, "50", prefix=SharedPrefix(20, 3))
    ids = [
        tokenizer.encode(workload.prompt("measured", index).content, add_special_tokens=False).ids
        for index in range(30)
    ]
    assert {len(each) for each in ids} == {50}
    assert len({tuple(each[:20]) for each in ids}) == 3
    assert all(ids[index][:20] == ids[index + 3][:20] for index in range(27))
    assert len({tuple(each[:26]) for each in ids}) == 30
    assert workload.shared_prefix
    assert not load(file).shared_prefix


def test_facts_and_hash(trained):
    file, _ = trained
    workload = load(file, "uniform:0.5:64", "8")
    facts = workload.facts()
    assert (workload.isl, workload.osl, workload.exact_output) == (64, 8, True)
    assert facts["isl"] == "uniform:0.5:64"
    assert facts["vocabulary"] == len(workload.words)
    assert workload.content_hash() == load(file.parent, "uniform:0.5:64").content_hash()
    assert workload.content_hash() != load(file, "uniform:0.5:64", seed=1).content_hash()
    assert workload.content_hash() != workload.salted("x").content_hash()
    with pytest.raises(InputError, match="isl"):
        load(file, "1").require(10**6)


def test_truncation_and_padding_of_a_file_change_no_count(tmp_path):
    tokenizer = tokenizer_of("byte-level")
    tokenizer.enable_truncation(max_length=16)
    tokenizer.enable_padding(length=32)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    workload = load(tmp_path, "100")
    assert count(tokenizer_of("byte-level"), workload.prompt("measured", 0).content) == 100


def test_words_that_a_token_may_join_to_the_next_are_left_out(tmp_path):
    """Without a pre-tokenizer, merges run over spaces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.Fuse()
    words = [f"{a}{b}" for a in ALPHABET[:5] for b in ALPHABET[:5]]
    vocabulary = {each: place for place, each in enumerate([" ", *ALPHABET, *words])}
    merges = [(a, b) for a, b in words]
    for word in words:
        vocabulary[f" {word}"] = len(vocabulary)
    merges += [(" ", word) for word in words]
    # One token over the end of a word: "ab cd" is one, not two.
    vocabulary["ab cd"] = len(vocabulary)
    merges.append(("ab", " cd"))
    tokenizer.model = models.BPE(vocab=vocabulary, merges=merges)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert count(tokenizer, "ab cd") == 1
    workload = load(tmp_path, "200")
    assert "ab" not in workload.words
    assert len(workload.words) == len(words) - 1
    for index in range(20):
        assert count(tokenizer, workload.prompt("measured", index).content) == 200


def test_a_tokenizer_of_letters_is_refused(tmp_path):
    vocabulary = {each: place for place, each in enumerate(" " + ALPHABET)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="keep words whole") as error:
        load(tmp_path)
    assert error.value.field == "tokenizer"


def test_no_tokenizer(tmp_path):
    with pytest.raises(InputError, match="is no file"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"name a tokenizer\.json") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)
