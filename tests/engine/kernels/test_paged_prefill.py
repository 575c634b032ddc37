"""New queries of several sequences over paged keys and values, against a softmax in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.engine.kernels.attention import attend_chunk
from upcurve.engine.kernels.paged_prefill import Launch, attend_chunks_paged
from upcurve.engine.kernels.sequences import Chunk, Sequences
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

pytestmark = pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter")

PAGES = 64
FP8 = torch.float8_e4m3fn
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


class Case:
    """Sequences in shuffled pages; what they do not own, and what lies behind them, is NaN."""

    def __init__(
        self,
        sizes: list[tuple[int, int]],
        *,
        seed: int = 0,
        kv_heads: int = 2,
        group: int = 2,
        head_dim: int = 16,
        page_size: int = 4,
        dtype: torch.dtype = torch.float32,
        kv_dtype: torch.dtype | None = None,
    ) -> None:
        """`sizes` are context and new tokens of each."""
        self.generator = torch.Generator().manual_seed(seed)
        kv_dtype = kv_dtype or dtype
        both = self.normal(PAGES, 2, page_size, kv_heads, head_dim).to(kv_dtype)
        self.keys, self.values = both[:, 0], both[:, 1]
        order = torch.randperm(PAGES, generator=self.generator)
        width = max(-(-sum(size) // page_size) for size in sizes) + 2
        tables = torch.randint(PAGES, (len(sizes) + 2, width), generator=self.generator)
        slots = torch.randperm(len(sizes) + 2, generator=self.generator).tolist()
        owned = torch.zeros(PAGES, page_size, dtype=torch.bool)
        chunks, start = [], 3  # rows of others come before
        for slot, (context, length) in zip(slots, sizes, strict=False):
            used = -(-(context + length) // page_size)
            mine, order = order[:used], order[used:]
            tables[slot, :used] = mine
            at = torch.arange(context + length)
            owned[mine[at // page_size], at % page_size] = True
            chunks.append(Chunk(start, length, context, slot))
            start += length
        poison = torch.full((1,), torch.nan).to(kv_dtype)
        for cache in (self.keys, self.values):
            if kv_dtype == FP8:  # assignment by mask goes through its bytes
                cache.view(torch.uint8)[~owned] = poison.view(torch.uint8)
            else:
                cache[~owned] = poison
        self.tables = tables.to(torch.int32)
        self.sequences = Sequences.of(tuple(chunks), torch.device("cpu"))
        # As they lie in a projection: a query beside its gate.
        wide = self.normal(start - 3, kv_heads * group, 2 * head_dim).to(dtype)
        self.q = wide[..., :head_dim]

    def normal(self, *size: int) -> torch.Tensor:
        return torch.randn(size, generator=self.generator)

    def expected(self) -> torch.Tensor:
        """In float64, each query of each head by itself."""
        out = torch.zeros(self.q.shape, dtype=torch.float64)
        group, row = self.q.shape[1] // self.keys.shape[2], 0
        for chunk in self.sequences.chunks:
            pages = self.tables[chunk.slot].long()
            k, v = (
                cache.float()[pages].flatten(0, 1).double() for cache in (self.keys, self.values)
            )
            for seen in range(chunk.context + 1, chunk.context + chunk.length + 1):
                for head in range(self.q.shape[1]):
                    scores = k[:seen, head // group] @ self.q[row, head].double()
                    weights = torch.softmax(scores * self.q.shape[2] ** -0.5, 0)
                    out[row, head] = weights @ v[:seen, head // group]
                row += 1
        return out

    def attend(self, launch: Launch | None = None) -> torch.Tensor:
        return attend_chunks_paged(
            *(self.q, self.keys, self.values, self.tables, self.sequences), launch=launch
        )

    def check(self, launch: Launch | None = None) -> None:
        got = self.attend(launch)
        assert got.dtype == self.q.dtype
        want = self.expected()
        at_most = TOLERANCE[self.q.dtype]
        torch.testing.assert_close(got.double(), want, atol=at_most, rtol=at_most)


@settings(max_examples=20)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 24), st.integers(1, 20)), min_size=1, max_size=3),
    page_size=st.sampled_from([4, 7, 16, 32]),
    group=st.sampled_from([1, 3, 8]),
    rows=st.sampled_from([16, 32]),
    seed=st.integers(0, 99),
)
def test_any_sequences(
    sizes: list[tuple[int, int]], page_size: int, group: int, rows: int, seed: int
) -> None:
    case = Case(sizes, page_size=page_size, group=group, kv_heads=1, seed=seed)
    case.check(Launch(rows, 16, 4, 2))


@pytest.mark.parametrize("context", [0, 1, 15, 16, 17, 32])
@pytest.mark.parametrize("length", [1, 7, 8, 9])
def test_borders_of_pages_and_tiles(context: int, length: int) -> None:
    Case([(context, length)], kv_heads=1).check(Launch(16, 16, 4, 2))


@pytest.mark.parametrize("page_size", [8, 16, 64])
@pytest.mark.parametrize("tile", [16, 32])
def test_tiles_and_pages_of_any_ratio(page_size: int, tile: int) -> None:
    Case([(30, 20), (0, 33)], page_size=page_size, kv_heads=1).check(Launch(32, tile, 4, 2))


@pytest.mark.parametrize(("kv_heads", "group"), [(2, 8), (1, 16), (3, 1), (1, 20)])
def test_query_groups(kv_heads: int, group: int) -> None:
    Case([(9, 5), (0, 3)], kv_heads=kv_heads, group=group).check(Launch(16, 16, 4, 2))


@pytest.mark.parametrize("head_dim", [8, 80, 256])
def test_head_dims_as_dispatch_launches_them(head_dim: int) -> None:
    Case([(37, 5)], head_dim=head_dim, kv_heads=1).check()


@pytest.mark.parametrize(
    ("dtype", "kv_dtype"),
    [(torch.float16, torch.float16), (torch.float16, FP8), (torch.bfloat16, FP8)],
)
def test_dtypes(dtype: torch.dtype, kv_dtype: torch.dtype) -> None:
    Case([(20, 9), (0, 4)], dtype=dtype, kv_dtype=kv_dtype).check()


def test_every_row_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case([(3, 1), (0, 17), (5, 2), (16, 16)], kv_heads=1)
    empty = torch.empty

    def poisoned(*size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return empty(*size, dtype=dtype, device=device).fill_(torch.nan)

    monkeypatch.setattr(torch, "empty", poisoned)
    assert case.attend(Launch(16, 16, 4, 2)).isfinite().all()


def test_scores_far_apart() -> None:
    case = Case([(40, 9)])
    case.q *= 100
    case.check(Launch(16, 16, 4, 2))


def test_is_the_reference_of_the_engine() -> None:
    case = Case([(12, 9), (0, 14)])
    for chunk, got in zip(case.sequences.chunks, case.attend().split([9, 14]), strict=True):
        rows = case.q[chunk.start - 3 : chunk.start - 3 + chunk.length]
        want = attend_chunk(rows, case.keys, case.values, case.tables[chunk.slot], chunk.context)
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
