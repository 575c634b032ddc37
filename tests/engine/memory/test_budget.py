"""The arithmetic of the memory that requests get."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.errors import EngineInputError
from upcurve.engine.memory.budget import Budget, budget, free_bytes
from upcurve.engine.memory.caches import Caches, CacheTypes
from upcurve.engine.model.checkpoint import small_config
from upcurve.engine.model.shapes import ModelShapes

SHAPES = ModelShapes.from_config(small_config())
PER_TOKEN = 2 * 2 * 2 * 64 * 4
"""Two attention layers, keys and values, 2 heads of 64, four bytes."""
PER_REQUEST = 6 * (8 * 64 * 64 * 4 + 4 * (2 * 4 * 64 + 8 * 64) * 4)
"""Six recurrent layers: a matrix of 64 x 64 for each of 8 heads, four convolution inputs."""


FP32 = CacheTypes(torch.float32, torch.float32)
BF16 = CacheTypes(torch.bfloat16, torch.bfloat16)
SMALLEST = CacheTypes(torch.bfloat16, torch.float8_e4m3fn, torch.bfloat16)


def size(types: CacheTypes = FP32, **changes: Any) -> Budget:
    given_values: dict[str, Any] = {
        "max_running_requests": 4,
        "context_length": 100,
        "page_size": 16,
        "available": 2**30,
    }
    return budget(SHAPES, types, **(given_values | changes))


def test_ample_memory_holds_every_request_at_full_context() -> None:
    got = size()
    assert got == Budget(PER_TOKEN, PER_REQUEST, 4, 4 * 112, 16)
    assert got.pages == 28
    assert got.total_bytes == PER_TOKEN * 448 + PER_REQUEST * 4
    assert got.describe() == (
        "memory for requests: 0.00 GiB (448 KV tokens of 2,048 B, 4 states of 0.84 MiB)"
    )


def test_bfloat16_halves_all_but_the_float32_state() -> None:
    got = size(BF16)
    assert got.bytes_per_token == PER_TOKEN // 2
    assert got.bytes_per_request == 6 * (8 * 64 * 64 * 4 + 4 * 1024 * 2)


def test_fp8_keys_and_bfloat16_state_take_a_quarter_and_a_half() -> None:
    got = size(SMALLEST)
    assert got.bytes_per_token == PER_TOKEN // 4
    assert got.bytes_per_request == 6 * (8 * 64 * 64 * 2 + 4 * 1024 * 2)


@given(
    available=st.integers(0, 20 * 2**20), requests=st.integers(1, 8), context=st.integers(1, 3000)
)
def test_scarce_memory_is_never_exceeded(available: int, requests: int, context: int) -> None:
    pages = -(-context // 16)
    padding = PER_REQUEST + PER_TOKEN * 16
    least = PER_REQUEST * requests + PER_TOKEN * pages * 16
    sizes = {"max_running_requests": requests, "context_length": context}
    if least + padding > available:
        with pytest.raises(EngineInputError, match="context-length"):
            size(available=available, **sizes)
        return
    got = size(available=available, **sizes)
    assert least <= got.total_bytes <= available - padding
    assert got.token_capacity % 16 == 0
    assert got.token_capacity <= requests * pages * 16


def test_tokens_may_be_fewer_than_fit_but_for_one_request() -> None:
    assert size(max_kv_tokens=200).token_capacity == 192
    assert size(max_kv_tokens=10_000).token_capacity == 4 * 112
    with pytest.raises(EngineInputError) as caught:
        size(max_kv_tokens=100)
    assert str(caught.value) == (
        "max-kv-tokens: 100 do not hold one request of 100 tokens in pages of 16; "
        "give 112 or more, or lower --context-length"
    )


def test_the_error_says_what_does_not_fit() -> None:
    with pytest.raises(EngineInputError) as caught:
        size(available=2**20, context_length=4096)
    assert str(caught.value) == (
        "context-length: one request of 4096 tokens beside 4 states needs more than the 0.0 GiB "
        "that are free for them; lower --context-length or --max-running-requests"
    )


@pytest.mark.parametrize("types", [FP32, BF16, SMALLEST])
def test_the_caches_take_what_the_budget_says(types: CacheTypes) -> None:
    got = size(types)
    caches = Caches(
        SHAPES,
        types,
        slots=4,
        pages=got.pages,
        page_size=16,
        pages_per_request=7,
        device=torch.device("cpu"),
    )
    pages = [t for each in caches.attention.values() for t in (each.keys, each.values)]
    states = [t for each in caches.linear.values() for t in (each.recurrent, each.convolution)]
    # One page and one slot belong to padding.
    assert sum(t.nbytes for t in pages) == got.bytes_per_token * (got.token_capacity + 16)
    assert sum(t.nbytes for t in states) == got.bytes_per_request * 5


def test_a_machine_has_free_memory() -> None:
    assert free_bytes(torch.device("cpu")) > 0
