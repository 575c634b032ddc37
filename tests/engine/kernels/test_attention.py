"""Paged attention against a softmax over each sequence in float64."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels.attention import attend_chunk, attend_step, store

KV_HEADS, DIM = 2, 8


def naive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The last len(q) positions of a sequence look at all before them and at themselves."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    share = q.shape[1] // k.shape[1]
    for row in range(len(q)):
        seen = len(k) - len(q) + row + 1
        for head in range(q.shape[1]):
            keys, values = k[:seen, head // share].double(), v[:seen, head // share].double()
            scores = keys @ q[row, head].double() * DIM**-0.5
            out[row, head] = torch.softmax(scores, 0) @ values
    return out


class Pool:
    """A pool of shuffled pages whose unused places hold large numbers."""

    def __init__(self, pages: int, size: int, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.keys = torch.full((pages + 1, size, KV_HEADS, DIM), 1e3)
        self.values = torch.full_like(self.keys, 1e3)
        self.order = (torch.randperm(pages, generator=self.generator) + 1).tolist()

    def normal(self, *size: int) -> torch.Tensor:
        return torch.randn(size, generator=self.generator)

    def add(self, length: int) -> tuple[list[int], torch.Tensor, torch.Tensor]:
        table = [self.order.pop() for _ in range(-(-length // self.size))]
        k, v = self.normal(length, KV_HEADS, DIM), self.normal(length, KV_HEADS, DIM)
        at = torch.arange(length)
        places = torch.tensor(table)[at // self.size] * self.size + at % self.size
        store(self.keys, k, places)
        store(self.values, v, places)
        return table, k, v


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    size=st.sampled_from([1, 4, 7, 16]),
    share=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_a_step(lengths: list[int], size: int, share: int, seed: int) -> None:
    pool = Pool(200, size, seed)
    held = [pool.add(length) for length in lengths]
    width = max(len(table) for table, _, _ in held)
    tables = torch.tensor([table + [0] * (width - len(table)) for table, _, _ in held])
    # What an earlier owner left behind the end of a sequence must not be looked at.
    pool.keys[0], pool.values[0] = torch.nan, torch.inf
    q = pool.normal(len(lengths), KV_HEADS * share, DIM)
    got = attend_step(q, pool.keys, pool.values, tables, torch.tensor(lengths))
    want = torch.cat([naive(q[i, None], k, v) for i, (_, k, v) in enumerate(held)])
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)


@given(
    context=st.one_of(st.just(0), st.integers(1, 40)),
    length=st.integers(1, 40),
    size=st.sampled_from([1, 4, 7, 16]),
    share=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_a_chunk(context: int, length: int, size: int, share: int, seed: int) -> None:
    pool = Pool(200, size, seed)
    pool.add(5)
    table, k, v = pool.add(context + length)
    # More pages are reserved than are filled yet.
    pages = torch.tensor([*table, *(pool.order.pop() for _ in range(3))])
    q = pool.normal(length, DIM, KV_HEADS * share).transpose(1, 2)
    got = attend_chunk(q, pool.keys, pool.values, pages, context)
    torch.testing.assert_close(got.double(), naive(q, k, v), atol=1e-5, rtol=1e-5)


def test_fp8_pages_hold_what_the_format_can_and_saturate() -> None:
    cache = torch.zeros(3, 4, KV_HEADS, DIM, dtype=torch.float8_e4m3fn)
    rows = torch.randn(2, KV_HEADS, DIM, generator=torch.Generator().manual_seed(0))
    rows[0, 0, :2] = torch.tensor([1e4, -1e4])
    store(cache, rows, torch.tensor([5, 9]))
    held = cache.flatten(0, 1).float()
    assert held[5, 0, :2].tolist() == [448.0, -448.0]
    within = rows.clamp(-448, 448)
    # Three bits of mantissa: half a step is 1/16 of the value, or the smallest step.
    assert ((held[[5, 9]] - within).abs() <= within.abs() / 16 + 2**-10).all()
    q = torch.randn(1, KV_HEADS, DIM, generator=torch.Generator().manual_seed(1))
    table = torch.tensor([[1, 2]])
    got = attend_step(q, cache, cache, table, torch.tensor([6]))
    seen = cache.float()[1:].flatten(0, 1)[:6]
    torch.testing.assert_close(got.double(), naive(q, seen, seen), atol=1e-5, rtol=1e-5)
