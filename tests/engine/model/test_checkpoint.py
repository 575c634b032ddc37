"""Random weights that behave like a model's, and the checkpoint folder."""

from __future__ import annotations

import pydoc_data.topics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer

from tests.engine.model.oracle import (
    CPU,
    greedy,
    in_pieces,
    load,
    new_memory,
    random_ids,
    tiny_config,
    write,
)
from upcurve.engine.kernels import gated_delta
from upcurve.engine.model.checkpoint import SPECIAL_TOKENS, fill_dummy, train_tokenizer
from upcurve.engine.model.model import Model, load_model
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.weight_map import weight_map
from upcurve.engine.model.weights import GatedDeltaWeights, ModelWeights
from upcurve.engine.switches import Switches


def dummy(seed: int, **changes: int) -> Model:
    shapes = ModelShapes.from_config(tiny_config(**changes))
    weights = ModelWeights.empty(shapes, CPU, torch.float32)
    for each in weight_map(weights).values():
        each.fill_(torch.nan)
    fill_dummy(weights, seed)
    return Model(shapes, weights, Switches(), torch.float32)


def test_a_seed_gives_the_same_weights_and_another_one_others() -> None:
    first, again, other = (weight_map(dummy(seed).weights) for seed in (3, 3, 90))
    for name, each in first.items():
        assert each.isfinite().all(), name
        assert torch.equal(each, again[name]), name
        assert not torch.equal(each, other[name]), name


def test_the_dummy_format_draws_what_a_written_checkpoint_holds(tmp_path: Path) -> None:
    write(tmp_path, seed=7)
    stored = load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    drawn = load_model(
        tmp_path,
        device=CPU,
        dtype=torch.float32,
        switches=Switches(),
        load_format="dummy",
        seed=7,
    )
    for name, each in weight_map(drawn.weights).items():
        assert torch.equal(each, weight_map(stored.weights)[name]), name


def test_decays_have_time_constants_from_one_to_a_thousand_tokens() -> None:
    model = dummy(1, linear_num_value_heads=32)
    for layer in model.weights.layers:
        if isinstance(layer.mixer, GatedDeltaWeights):
            zero = torch.zeros(1, 32)
            g, _ = gated_delta.gates(zero, zero, layer.mixer.a_log, layer.mixer.dt_bias)
            constants = -1 / g
            assert constants.min() > 0.5
            assert constants.max() < 2e3


def test_experts_are_chosen_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    from upcurve.engine.kernels import routing

    seen: list[torch.Tensor] = []
    plain = routing.route

    def watch(
        logits: torch.Tensor, top_k: int, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weights, ids = plain(logits, top_k, **options)
        seen.append(ids[:, :top_k])
        return weights, ids

    monkeypatch.setattr(routing, "route", watch)
    model = dummy(1, num_experts=16, num_experts_per_tok=4)
    ids = torch.randperm(300, generator=torch.Generator().manual_seed(1)).tolist()
    in_pieces(model, new_memory(model), ids, [300])
    assert len(seen) == 4
    for layer in seen:
        counts = torch.bincount(layer.flatten(), minlength=16).double()
        expected = 300 * 4 / 16
        # Rows of a random router differ in length, so the spread exceeds that of fair dice (~4).
        assert (counts - expected).std() < expected / 2
        assert counts.min() > expected / 8


def test_greedy_output_is_varied() -> None:
    model = dummy(2)
    prompts = [random_ids(10, seed=seed) for seed in range(3)]
    memory = new_memory(model)
    outs = [greedy(model, memory, prompt, 60)[10:] for prompt in prompts]
    for out in outs:
        assert Counter(out).most_common(1)[0][1] < 30
        assert len(set(out)) >= 10
    assert len({tuple(out) for out in outs}) == 3


def test_the_files_of_a_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b")
    folder = tmp_path / "a" / "b"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    tensors = load_file(folder / "model.safetensors")
    assert all(name == "lm_head.weight" or name.startswith("model.") for name in tensors)
    write(folder, seed=9)
    again = load_file(folder / "model.safetensors")
    assert not torch.equal(again["lm_head.weight"], tensors["lm_head.weight"])


@pytest.mark.parametrize("vocabulary", [300, 1000])
def test_the_tokenizer_gives_every_text_back(vocabulary: int) -> None:
    tokenizer: Tokenizer = train_tokenizer(vocabulary)
    assert tokenizer.get_vocab_size() == vocabulary
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2]
    for text in (
        "",
        "Plain words, and  two spaces.\n\n\tA tab.",
        "Größe, 東京, 🙂 \u0000 \r\n",
        pydoc_data.topics.topics["assert"],
    ):
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text
        assert all(each < vocabulary for each in ids)
    assert tokenizer.encode("<|im_start|>user").ids[0] == 1


def test_embeddings_and_activations_are_of_order_one() -> None:
    model = dummy(1)
    ids = random_ids(50, seed=1)
    assert 0.9 < F.embedding(torch.tensor(ids), model.weights.embedding).std() < 1.1
    logits = in_pieces(model, new_memory(model), ids, [50])
    assert 0.3 < logits.std() < 3
