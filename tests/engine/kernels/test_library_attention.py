"""What the library is given and when; its arithmetic is torch's, on the CPU, here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.kernels.operands import normal
from upcurve.engine.kernels import library_attention
from upcurve.engine.kernels.library_attention import LEAST_TOKENS, attend_from_start, takes


@pytest.fixture(scope="module", autouse=True)
def on_cpu() -> Iterator[None]:
    """Any way to compute it: cuDNN has no CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library_attention, "sdpa_kernel", lambda backend: nullcontext())
        patch.setattr(library_attention, "GRAIN", 16)
        yield


@given(
    length=st.integers(1, 40),
    kv_heads=st.integers(1, 3),
    share=st.integers(1, 3),
    page_size=st.sampled_from([1, 4, 16]),
    cache=st.sampled_from([torch.float32, torch.float8_e4m3fn]),
)
def test_prompts_in_pages(
    length: int, kv_heads: int, share: int, page_size: int, cache: torch.dtype
) -> None:
    used, heads = -(-length // page_size), kv_heads * share
    pages = used + 3
    keys, values = (normal(pages, page_size, kv_heads, 16, seed=seed).to(cache) for seed in (1, 2))
    order = torch.randperm(pages, generator=torch.Generator().manual_seed(length)).int()
    q = normal(length, heads, 16)
    # What lies behind the last token, and in pages of others, is not read.
    flat = order[:used].long()
    for stored in (keys, values):
        stored[order[used:].long()] = torch.nan
        last = length - (used - 1) * page_size
        stored[flat[-1], last:] = torch.nan
    out = attend_from_start(q, keys, values, order)
    k, v = (
        stored[flat].flatten(0, 1)[:length].double().repeat_interleave(share, 1)
        for stored in (keys, values)
    )
    scores = torch.einsum("qhd,khd->hqk", q.double(), k) * 16**-0.5
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
    want = torch.einsum("hqk,khd->qhd", torch.softmax(scores, -1), v)
    assert out.shape == q.shape
    assert out.stride(2) == 1
    torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "context", "dtype", "capability", "taken"),
    [
        (LEAST_TOKENS, 0, torch.bfloat16, (9, 0), True),
        (LEAST_TOKENS - 1, 0, torch.bfloat16, (9, 0), False),
        (LEAST_TOKENS, 1, torch.bfloat16, (9, 0), False),
        (LEAST_TOKENS, 0, torch.float16, (9, 0), False),
        (LEAST_TOKENS, 0, torch.bfloat16, (8, 0), False),
        (LEAST_TOKENS, 0, torch.bfloat16, (0, 0), False),
    ],
)
def test_what_it_takes(
    tokens: int,
    context: int,
    dtype: torch.dtype,
    capability: tuple[int, int],
    taken: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library_attention, "compute_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    assert takes(torch.empty(tokens, 1, 8, dtype=dtype), context) is taken
