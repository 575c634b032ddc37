"""How the text of a divergence is spread over steps and slots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.fidelity.check import Steps


@given(st.integers(3, 500), st.booleans())
def test_slots_are_used_again_whatever_the_text(passages: int, gpu: bool) -> None:
    steps = Steps.sized(passages, gpu=gpu)
    assert 1 <= steps.requests <= passages / 3
    assert steps.step_tokens >= steps.requests


@pytest.mark.parametrize("gpu", [False, True])
def test_what_is_given_is_taken(gpu: bool) -> None:
    steps = Steps.sized(48, gpu=gpu, step_tokens=7, requests=5, state_dtype="bf16")
    assert steps == Steps(7, 5, state_dtype="bf16")
    assert Steps.sized(1, gpu=gpu).requests == 1
