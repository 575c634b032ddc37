"""The weighted sum of experts' results against float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.kernels.mixing import BLOCK, mix, mix_reference


@given(
    tokens=st.integers(1, 5),
    choices=st.integers(1, 9),
    width=st.sampled_from([1, 7, BLOCK, BLOCK + 1]),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("way", [mix, mix_reference])
def test_it_is_the_sum(way, tokens: int, choices: int, width: int, seed: int) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(seed)
    # A row that nobody wants must not be looked at.
    results = torch.full((tokens * choices + 1, width), torch.nan)
    where = torch.randperm(tokens * choices, generator=generator).view(tokens, choices)
    results[:-1] = torch.randn(tokens * choices, width, generator=generator)
    weights = torch.randn(tokens, choices, generator=generator)
    want = (results[where].double() * weights.double().unsqueeze(-1)).sum(1)
    torch.testing.assert_close(way(results, where, weights).double(), want, atol=1e-5, rtol=1e-5)
