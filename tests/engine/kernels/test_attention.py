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
    beyond = torch.arange(width * size) >= torch.tensor(lengths).unsqueeze(-1)
    mask = torch.zeros(beyond.shape).masked_fill(beyond, -torch.inf)[:, None, None]
    q = pool.normal(len(lengths), KV_HEADS * share, DIM)
    got = attend_step(q, pool.keys, pool.values, tables, mask)
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
