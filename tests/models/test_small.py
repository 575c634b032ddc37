"""The model that ships: the file, and what it says, in this engine and in transformers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from models.training.checkpoint import read_checkpoint
from models.training.examine import Examiner
from models.training.shape import Shape
from tests.engine.model import oracle
from tests.engine.serve.running import Running
from upcurve.accuracy.problems import held_out
from upcurve.engine.model.loader import SKIPPED
from upcurve.engine.serve.tokenizer import ByteTokenizer
from upcurve.sweep.demo import SMALL
from upcurve.sweep.recipe import load_recipe

PROBLEMS = held_out(8, 1)[2:8:2]


@pytest.fixture(scope="module")
def reference() -> Any:
    return oracle.load_transformers(SMALL)


@pytest.fixture(scope="module")
def auto_tokenizer() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(SMALL)


def prompts(auto_tokenizer: Any) -> list[list[int]]:
    """Token ids of a completion and of two chats, by transformers."""
    first, *others = PROBLEMS
    chats = [
        auto_tokenizer.apply_chat_template(
            [{"role": "user", "content": problem.question}],
            add_generation_prompt=True,
            return_dict=False,
        )
        for problem in others
    ]
    return [auto_tokenizer(f"Question: {first.question}\nAnswer:")["input_ids"], *chats]


def test_greedy_answers_are_those_of_transformers_and_right(
    reference: Any, auto_tokenizer: Any
) -> None:
    model = oracle.load(SMALL)
    memory = oracle.new_memory(model)
    ends = reference.config.eos_token_id
    for problem, ids in zip(PROBLEMS, prompts(auto_tokenizer), strict=True):
        with torch.inference_mode():
            out = reference.generate(torch.tensor([ids]), max_new_tokens=160)[0].tolist()
        assert out[-1] in ends
        assert oracle.greedy(model, memory, ids, len(out) - len(ids)) == out
        answer = auto_tokenizer.decode(out[len(ids) :], skip_special_tokens=True)
        assert answer.strip() == problem.answer


def test_the_engine_cuts_text_as_transformers_does(auto_tokenizer: Any) -> None:
    own = ByteTokenizer.from_folder(SMALL)
    assert own is not None
    for problem in held_out(50, 2):
        text = f"Question: {problem.question}\nAnswer: {problem.answer}"
        ids = own.encode(text, add_special_tokens=False)
        assert ids == auto_tokenizer(text)["input_ids"]
        assert auto_tokenizer.decode(ids) == text


def test_the_server_answers_a_question_with_its_steps() -> None:
    problem = held_out(8, 1)[-1]
    with Running(SMALL) as server, server.client() as client:
        chat = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": problem.question}],
            temperature=0,
            max_tokens=120,
        )
        text = client.completions.create(
            model="tiny",
            prompt=f"Question: {problem.question}\nAnswer:",
            temperature=0,
            max_tokens=120,
        )
    for content, end in [
        (chat.choices[0].message.content, chat.choices[0].finish_reason),
        (text.choices[0].text, text.choices[0].finish_reason),
    ]:
        assert (content.strip(), end) == (problem.answer, "stop")


def test_held_out_problems_are_answered() -> None:
    network, tokenizer = read_checkpoint(SMALL)
    examination = Examiner(network, tokenizer, held_out(14, 1), length=256)()
    assert examination.problems == 14
    assert examination.right >= 12
    assert len(examination.wrong) == 14 - examination.right


def test_the_strict_loader_passes_over_nothing_but_token_prediction_ahead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with safe_open(SMALL / "model.safetensors", "pt") as file:
        names = list(file.keys())
    ahead = [name for name in names if name.startswith(SKIPPED)]
    assert ahead
    assert all(name.startswith("mtp.") for name in ahead)
    with caplog.at_level("INFO", "upcurve.engine.model.loader"):
        oracle.load(SMALL)
    assert f"skipped {len(ahead)} tensors" in caplog.text


def test_the_checkpoint_is_small_and_says_what_it_is() -> None:
    files = [path for path in SMALL.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16 * 2**20
    config = json.loads((SMALL / "config.json").read_text())
    record = json.loads((SMALL / "training.json").read_text())
    for name, value in record["shape"].items():
        assert getattr(Shape(), name) == value
        assert config.get(name, config["rope_parameters"].get(name)) == value
    assert ByteTokenizer.from_folder(SMALL) is not None
    with safe_open(SMALL / "model.safetensors", "pt") as file:
        names = list(file.keys())
        sizes = [torch.Size(file.get_slice(name).get_shape()).numel() for name in names]
    assert sum(sizes) == record["parameters"]


def test_the_recipe_of_the_small_model_asks_for_its_tokens() -> None:
    recipe = load_recipe(SMALL.parents[1] / "recipes" / "qwen35-small-cpu.yaml")
    assert Path(recipe.model) == Path("models/small")
    low, high = recipe.workload.vocabulary
    config = json.loads((SMALL / "config.json").read_text())
    assert max(config["eos_token_id"]) < low
    assert high <= config["vocab_size"]


def test_the_card_gives_the_scores_of_the_record() -> None:
    card = Path(SMALL / "README.md").read_text()
    record = json.loads((SMALL / "training.json").read_text())
    for exam in record["exams"]:
        if exam["name"] != "quick":
            assert f"{exam['right']:,} of {exam['problems']:,}" in card
