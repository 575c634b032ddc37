"""Norm, rotation and store in one launch, under Triton's interpreter, against one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels import attention
from upcurve.engine.kernels.query_key import prepare
from upcurve.engine.kernels.rms_norm import add_norm_reference
from upcurve.engine.kernels.rotary import rotary_table, rotate
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

pytestmark = pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter")


class Case:
    def __init__(
        self, tokens: int, heads: int, kv_heads: int, dim: int, cache: torch.dtype = torch.float64
    ) -> None:
        generator = torch.Generator().manual_seed(tokens)
        self.heads, self.kv_heads, self.dim = heads, kv_heads, dim
        wide = torch.randn(tokens, 2 * (heads + kv_heads) * dim + 3, generator=generator)
        self.projected = wide[:, : 2 * (heads + kv_heads) * dim]
        self.weights = [torch.randn(dim, generator=generator) for _ in range(2)]
        positions = torch.randint(0, 5000, (tokens,), generator=generator)
        self.cos, self.sin = rotary_table(positions, 2 * (dim // 8), 10_000.0)
        self.places = torch.randperm(4 * tokens, generator=generator)[:tokens]
        shape = (tokens, 4, kv_heads, dim)
        dtype = torch.float32 if cache == torch.float64 else cache
        self.caches = [torch.zeros(shape).to(dtype) for _ in range(2)]

    def prepare(self) -> torch.Tensor:
        return prepare(
            *(self.projected, *self.weights, 1e-6, self.cos, self.sin, *self.caches, self.places)
        )

    def expected(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        count, dim = len(self.projected), self.dim
        wide = self.projected.double()
        q, k, v = wide.split([2 * self.heads * dim, *[self.kv_heads * dim] * 2], dim=-1)
        q = q.view(count, self.heads, 2 * dim)[..., :dim]
        k, v = (each.view(count, self.kv_heads, dim) for each in (k, v))
        cos, sin = self.cos.double(), self.sin.double()
        q, k = (
            rotate(_normalised(each, weight), cos, sin)
            for each, weight in zip((q, k), self.weights, strict=True)
        )
        return q, k, v


def _normalised(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    norm = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
    want = x * norm * (1.0 + weight.double())
    _, in_float32 = add_norm_reference(x.float(), None, weight, 1e-6)
    torch.testing.assert_close(in_float32.double(), want, atol=1e-4, rtol=1e-4)
    return want


@given(
    tokens=st.integers(1, 3),
    heads=st.integers(1, 6),
    kv_heads=st.integers(1, 5),
    dim=st.sampled_from([8, 24, 64]),
)
def test_queries_and_caches(tokens: int, heads: int, kv_heads: int, dim: int) -> None:
    case = Case(tokens, heads, kv_heads, dim)
    q = case.prepare()
    want_q, want_k, want_v = case.expected()
    torch.testing.assert_close(q.double(), want_q, atol=1e-5, rtol=1e-5)
    for cache, want in zip(case.caches, (want_k, want_v), strict=True):
        expected = torch.zeros_like(cache, dtype=torch.float64)
        expected.view(-1, kv_heads, dim)[case.places] = want
        torch.testing.assert_close(cache.double(), expected, atol=1e-5, rtol=1e-5)


def test_fp8_pages_hold_what_is_too_large_as_the_largest() -> None:
    case = Case(2, 2, 1, 16, torch.float8_e4m3fn)
    case.projected[:, -16:] = torch.tensor([1000.0, -1e6] * 8)
    case.prepare()
    values = case.caches[1].float().view(-1, 16)[case.places]
    assert torch.equal(values, torch.tensor([448.0, -448.0] * 8).expand(2, 16))
    stored = torch.zeros_like(case.caches[1])
    attention.store(stored, case.projected[:, -16:].view(2, 1, 16), case.places)
    assert torch.equal(stored.float(), case.caches[1].float())


def test_nothing_of_no_tokens() -> None:
    assert Case(0, 2, 1, 16).prepare().shape == (0, 2, 16)
