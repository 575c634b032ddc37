from __future__ import annotations

import pickle

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from upcurve.errors import InputError
from upcurve.load.workload import SharedPrefix, TextWorkload, parse_lengths

WORDS = [a + b + c for a in "bcdfghkl" for b in "aeiou" for c in "mnrst"]
CORPUS = [" ".join(WORDS)] * 5


def byte_level():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


def metaspace():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=700, show_progress=False))
    return made


def characters():
    """A tokenizer that keeps no word whole."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.Lowercase()
    made.train_from_iterator(["abc def"], trainers.BpeTrainer(vocab_size=8, show_progress=False))
    return made


@pytest.fixture(scope="module", params=[byte_level, metaspace])
def tokenizer(request, tmp_path_factory):
    """Return a tokenizer, and the folder that it was saved in."""
    made = request.param()
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save(str(folder / "tokenizer.json"))
    return made, folder


def load(folder, isl="64", **more):
    return TextWorkload.load(folder, parse_lengths(isl, "isl"), parse_lengths("8", "osl"), **more)


def test_every_prompt_has_exactly_the_tokens_that_were_asked_for(tokenizer):
    made, folder = tokenizer
    workload = load(folder, "uniform:0.1:300", prefix=SharedPrefix(12, 2))
    for phase in ("measured", "warm-up", "probe"):
        for index in range(40):
            prompt = workload.prompt(phase, index)
            found = made.encode(prompt.content, add_special_tokens=False).ids
            assert len(found) == prompt.input_tokens


def test_prompts_are_distinct_and_the_same_again(tokenizer):
    _, folder = tokenizer
    workload = load(folder, "9")
    prompts = [workload.prompt("measured", index).content for index in range(300)]
    assert len(set(prompts)) == 300
    again = pickle.loads(pickle.dumps(workload))
    assert again.prompt("measured", 17).content == prompts[17]
    other = workload.salted("c4")
    assert other.content_hash() != workload.content_hash() == again.content_hash()
    assert other.prompt("measured", 17).content not in prompts


def test_the_facts_name_the_tokenizer(tokenizer):
    _, folder = tokenizer
    facts = load(folder).facts()
    assert facts["prompts"] == "random words, all distinct"
    assert facts["tokenizer"].startswith(folder.name + "/")


def test_what_is_no_tokenizer(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer: .* is no file"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="tokenizer: ") as error:
        load(tmp_path / "tokenizer.json")
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_keeps_no_word_whole(tmp_path):
    characters().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="does not keep words whole"):
        load(tmp_path)
