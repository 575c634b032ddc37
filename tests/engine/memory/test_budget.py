"""The arithmetic of the memory that requests get."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.errors import EngineInputError
from upcurve.engine.memory.budget import FREE_SHARE, Budget, budget, free_bytes
from upcurve.engine.memory.memory import Memory
from upcurve.engine.model.checkpoint import small_config
from upcurve.engine.model.shapes import ModelShapes

SHAPES = ModelShapes.from_config(small_config())
PER_TOKEN = 2 * 2 * 2 * 64 * 4
"""Two attention layers, keys and values, 2 heads of 64, four bytes."""
PER_REQUEST = 6 * (8 * 64 * 64 * 4 + 3 * (2 * 4 * 64 + 8 * 64) * 4)
"""Six recurrent layers: a matrix of 64 x 64 for each of 8 heads, three convolution inputs."""


def size(**changes: Any) -> Budget:
    given_values: dict[str, Any] = {
        "max_running_requests": 4,
        "context_length": 100,
        "page_size": 16,
        "dtype": torch.float32,
        "free": 2**30,
    }
    return budget(SHAPES, **(given_values | changes))


def test_ample_memory_holds_every_request_at_full_context() -> None:
    got = size()
    assert got == Budget(PER_TOKEN, PER_REQUEST, 4, 4 * 112)
    assert got.total_bytes == PER_TOKEN * 448 + PER_REQUEST * 4
    assert got.describe() == (
        "memory for requests: 0.00 GiB (448 KV tokens of 2,048 B, 4 states of 0.82 MiB)"
    )


def test_bfloat16_halves_all_but_the_float32_state() -> None:
    got = size(dtype=torch.bfloat16)
    assert got.bytes_per_token == PER_TOKEN // 2
    assert got.bytes_per_request == 6 * (8 * 64 * 64 * 4 + 3 * 1024 * 2)


@given(free=st.integers(0, 20 * 2**20), requests=st.integers(1, 8), context=st.integers(1, 3000))
def test_scarce_memory_is_never_exceeded(free: int, requests: int, context: int) -> None:
    pages = -(-context // 16)
    least = PER_REQUEST * requests + PER_TOKEN * pages * 16
    if least > int(free * FREE_SHARE):
        with pytest.raises(EngineInputError, match="context-length"):
            size(free=free, max_running_requests=requests, context_length=context)
        return
    got = size(free=free, max_running_requests=requests, context_length=context)
    assert least <= got.total_bytes <= free * FREE_SHARE
    assert got.token_capacity % 16 == 0
    assert got.token_capacity <= requests * pages * 16


def test_the_error_says_what_does_not_fit() -> None:
    with pytest.raises(EngineInputError) as caught:
        size(free=2**20, context_length=4096)
    assert str(caught.value) == (
        "context-length: one request of 4096 tokens beside 4 states needs more than the 0.0 GiB "
        "that are free; lower --context-length or --max-running-requests"
    )


def test_the_memory_takes_what_the_budget_says() -> None:
    got = size()
    memory = Memory(
        SHAPES,
        max_running_requests=4,
        token_capacity=got.token_capacity,
        page_size=16,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    pages = [t for each in memory.attention.values() for t in (each.keys, each.values)]
    states = [t for each in memory.linear.values() for t in (each.recurrent, each.convolution)]
    # One page belongs to nobody.
    assert sum(t.nbytes for t in pages) == got.bytes_per_token * (got.token_capacity + 16)
    assert sum(t.nbytes for t in states) == got.bytes_per_request * 4


def test_a_machine_has_free_memory() -> None:
    assert free_bytes(torch.device("cpu")) > 0
