"""One query a sequence over paged keys and values, against a softmax in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.engine.kernels.attention import attend_step
from upcurve.engine.kernels.paged_attention import Launch, attend_step_paged, choose_splits
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

needs_triton = pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter")

PAGES = 48
FP8 = torch.float8_e4m3fn
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


class Sequences:
    """Sequences in shuffled pages; what they do not own is NaN, and so is what lies behind."""

    def __init__(
        self,
        lengths: list[int],
        *,
        seed: int = 0,
        kv_heads: int = 2,
        head_dim: int = 16,
        page_size: int = 4,
        dtype: torch.dtype = torch.float32,
        kv_dtype: torch.dtype | None = None,
        group: int = 2,
    ) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        kv_dtype = kv_dtype or dtype
        shape = (PAGES, page_size, kv_heads, head_dim)
        # Keys and values lie in one tensor of another page stride.
        both = self.normal(PAGES, 2, *shape[1:]).to(kv_dtype)
        self.keys, self.values = both[:, 0], both[:, 1]
        order = torch.randperm(PAGES, generator=self.generator)
        width = max(-(-length // page_size) for length in lengths) + 2
        # Behind a sequence its row names pages of anybody.
        self.tables = torch.randint(PAGES, (len(lengths) + 3, width), generator=self.generator)
        self.slots = torch.randperm(len(lengths) + 3, generator=self.generator)[: len(lengths)]
        owned = torch.zeros(PAGES, page_size, dtype=torch.bool)
        for slot, length in zip(self.slots, lengths, strict=True):
            used = -(-length // page_size)
            mine, order = order[:used], order[used:]
            self.tables[slot, :used] = mine
            at = torch.arange(length)
            owned[mine[at // page_size], at % page_size] = True
        # Assignment of float8 by mask goes through its bytes.
        poison = torch.full((1,), torch.nan).to(kv_dtype)
        for cache in (self.keys, self.values):
            if kv_dtype == FP8:
                cache.view(torch.uint8)[~owned] = poison.view(torch.uint8)
            else:
                cache[~owned] = poison
        self.tables = self.tables.to(torch.int32)
        self.lengths = torch.tensor(lengths, dtype=torch.int32)
        self.q = self.normal(len(lengths), kv_heads * group, head_dim).to(dtype)

    def normal(self, *size: int) -> torch.Tensor:
        return torch.randn(size, generator=self.generator)

    def attend(self, launch: Launch | None = None) -> torch.Tensor:
        return attend_step_paged(
            self.q, self.keys, self.values, self.tables, self.slots, self.lengths, launch=launch
        )

    def expected(self) -> torch.Tensor:
        """In float64, each head of each sequence by itself."""
        out = torch.zeros(self.q.shape, dtype=torch.float64)
        group = self.q.shape[1] // self.keys.shape[2]
        for row, (slot, length) in enumerate(zip(self.slots, self.lengths, strict=True)):
            pages = self.tables[slot].long()
            k, v = (
                cache.float()[pages].flatten(0, 1)[:length].double()
                for cache in (self.keys, self.values)
            )
            for head in range(self.q.shape[1]):
                scores = k[:, head // group] @ self.q[row, head].double()
                weights = torch.softmax(scores * self.q.shape[2] ** -0.5, 0)
                out[row, head] = weights @ v[:, head // group]
        return out

    def check(self, launch: Launch | None = None) -> None:
        got = self.attend(launch)
        assert got.dtype == self.q.dtype
        at_most = TOLERANCE[self.q.dtype]
        torch.testing.assert_close(got.double(), self.expected(), atol=at_most, rtol=at_most)


@needs_triton
@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    page_size=st.sampled_from([4, 16, 7, 32]),
    group=st.sampled_from([1, 3, 4]),
    splits=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_any_lengths(
    lengths: list[int], page_size: int, group: int, splits: int, seed: int
) -> None:
    sequences = Sequences(lengths, page_size=page_size, group=group, seed=seed)
    sequences.check(Launch(splits, tile=16))


@needs_triton
@pytest.mark.parametrize("length", [1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 48])
def test_borders_of_pages_tiles_and_splits(length: int) -> None:
    sequences = Sequences([length, 1])
    for splits in (1, 2, 3):
        sequences.check(Launch(splits, tile=16))


@needs_triton
@pytest.mark.parametrize("page_size", [8, 16, 32, 64])
@pytest.mark.parametrize("tile", [16, 32])
def test_tiles_and_pages_of_any_ratio(page_size: int, tile: int) -> None:
    Sequences([70, 33], page_size=page_size, kv_heads=1).check(Launch(2, tile))


@needs_triton
@pytest.mark.parametrize(("kv_heads", "group"), [(1, 16), (2, 8), (1, 4), (3, 1), (1, 20)])
def test_query_groups(kv_heads: int, group: int) -> None:
    Sequences([21, 6], kv_heads=kv_heads, group=group).check()


@needs_triton
@pytest.mark.parametrize("head_dim", [8, 16, 80, 256])
def test_head_dims(head_dim: int) -> None:
    Sequences([37, 18], head_dim=head_dim, kv_heads=1).check()


@needs_triton
@pytest.mark.parametrize(
    ("dtype", "kv_dtype"),
    [
        (torch.float16, torch.float16),
        (torch.float16, FP8),
        (torch.bfloat16, FP8),
        (torch.float32, FP8),
        (torch.float32, torch.float16),
    ],
)
def test_dtypes(dtype: torch.dtype, kv_dtype: torch.dtype) -> None:
    Sequences([37, 1, 16], dtype=dtype, kv_dtype=kv_dtype).check(Launch(2, tile=16))


@needs_triton
def test_queries_that_are_columns_of_a_projection() -> None:
    sequences = Sequences([9, 30])
    batch, heads, head_dim = sequences.q.shape
    # As the model splits them off: each head's query beside its gate, keys and values behind.
    projected = torch.full((batch, heads * 2 * head_dim + 64), torch.nan)
    view = projected[:, : heads * 2 * head_dim].view(batch, heads, 2 * head_dim)[..., :head_dim]
    sequences.q = view.copy_(sequences.q)
    sequences.check()


@needs_triton
@pytest.mark.parametrize("splits", [1, 3])
def test_gated(splits: int) -> None:
    sequences = Sequences([9, 50], head_dim=24, group=3)
    both = sequences.normal(2, 6, 48)
    both[..., :24] = torch.nan
    got = attend_step_paged(
        *(sequences.q, sequences.keys, sequences.values),
        *(sequences.tables, sequences.slots, sequences.lengths),
        gate=both[..., 24:],
        launch=Launch(splits, tile=16),
    )
    want = sequences.expected() * torch.sigmoid(both[..., 24:].double())
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)


@needs_triton
def test_rows_of_padding_share_a_slot() -> None:
    sequences = Sequences([23, 1])
    rows = torch.tensor([0, 1, 1, 1])
    sequences.q = sequences.q[rows]
    sequences.slots, sequences.lengths = sequences.slots[rows], sequences.lengths[rows]
    sequences.check(Launch(3, tile=16))
    got = sequences.attend()
    assert torch.equal(got[1], got[2])


@needs_triton
def test_one_token_is_its_value() -> None:
    sequences = Sequences([1], group=1)
    page = sequences.tables[sequences.slots[0], 0]
    assert torch.equal(sequences.attend()[0], sequences.values[page, 0])


@needs_triton
def test_scores_far_apart() -> None:
    sequences = Sequences([40, 33])
    sequences.q *= 100
    sequences.check(Launch(3, tile=16))


@needs_triton
def test_is_the_reference_of_the_engine() -> None:
    sequences = Sequences([12, 40, 5])
    tables = sequences.tables[sequences.slots].long()
    wanted = attend_step(sequences.q, sequences.keys, sequences.values, tables, sequences.lengths)
    torch.testing.assert_close(sequences.attend(), wanted, atol=1e-5, rtol=1e-5)


def test_small_batches_fill_the_device_and_large_ones_do_not_oversplit() -> None:
    def programs(batch: int, capacity: int = 8192) -> int:
        splits = choose_splits(batch=batch, kv_heads=2, capacity=capacity, processors=132)
        return batch * 2 * splits

    for batch in (1, 2, 3, 4, 8, 16, 32, 64):
        assert 132 <= programs(batch) <= 4 * 132
    assert programs(64) // 128 <= 4
    assert programs(1000) == 2000
    # A split is worth its place in the combination.
    assert programs(1, capacity=1024) == 2 * 16
    assert programs(1, capacity=16) == 2


@given(
    batch=st.integers(1, 4096),
    kv_heads=st.integers(1, 32),
    capacity=st.integers(1, 1 << 20),
    processors=st.integers(1, 304),
)
def test_splits_are_few_and_never_none(
    batch: int, kv_heads: int, capacity: int, processors: int
) -> None:
    splits = choose_splits(batch=batch, kv_heads=kv_heads, capacity=capacity, processors=processors)
    assert 1 <= splits <= 256
    assert splits == 1 or splits * 64 <= capacity


def test_tiles_take_the_same_bytes_in_every_dtype() -> None:
    tables = torch.zeros(1, 8, dtype=torch.int32)
    tiles = {}
    for dtype in (FP8, torch.float16, torch.float32):
        keys = torch.empty(1, 16, 2, 256, dtype=dtype)
        q = torch.empty(1, 16, 256, dtype=torch.float16 if dtype == FP8 else dtype)
        tiles[dtype] = Launch.of(q, keys, tables).tile
    assert tiles == {FP8: 64, torch.float16: 32, torch.float32: 16}
