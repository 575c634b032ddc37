"""The rotary embedding against complex numbers in float64."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels.rotary import rotary_table, rotate


@given(
    rotary=st.sampled_from([2, 4, 10, 16]),
    theta=st.sampled_from([1e4, 1e7]),
    first=st.integers(0, 3000),
    heads=st.integers(1, 3),
)
def test_pairs_turn_by_position_times_frequency(
    rotary: int, theta: float, first: int, heads: int
) -> None:
    positions = torch.arange(first, first + 5)
    generator = torch.Generator().manual_seed(first)
    x = torch.randn(5, heads, 16, generator=generator)
    got = rotate(x, *rotary_table(positions, rotary, theta))
    half = rotary // 2
    frequency = theta ** (-torch.arange(half).double() / half)
    angle = positions.double().unsqueeze(-1) * frequency
    turn = torch.polar(torch.ones_like(angle), angle).unsqueeze(1)
    pairs = torch.complex(x[..., :half].double(), x[..., half:rotary].double()) * turn
    want = torch.cat([pairs.real, pairs.imag, x[..., rotary:].double()], -1)
    # float32 angles of a few thousand are right to about 2e-4.
    torch.testing.assert_close(got.double(), want, atol=2e-3, rtol=0.0)
    assert torch.equal(got[..., rotary:], x[..., rotary:])


def test_position_zero_changes_nothing() -> None:
    x = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(rotate(x, *rotary_table(torch.tensor([0]), 4, 1e4)), x)
