"""A question to a real engine that has no answer; one with an answer is in the demo's tests."""

from __future__ import annotations

import pytest

from upcurve.engine.model.checkpoint import small_config, write_checkpoint
from upcurve.sweep.demo import question_recipe
from upcurve.sweep.engine_process import EngineError
from upcurve.sweep.question import ask


def test_a_model_without_a_chat_template_is_said(tmp_path):
    folder = tmp_path / "mute"
    config = small_config(vocab_size=300, hidden_size=32, num_hidden_layers=4, num_experts=8)
    write_checkpoint(folder, config, seed=1)
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(EngineError, match="HTTP 400"):
        ask(question_recipe(folder), "Why?", log=tmp_path / "engine.log")
