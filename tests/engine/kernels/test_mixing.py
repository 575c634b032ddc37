"""The weighted sum of experts' results against float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.kernels.operands import normal
from upcurve.engine.kernels import mixing
from upcurve.engine.kernels.mixing import BLOCK, mix, mix_in_one
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

needs_interpreter = pytest.mark.skipif(
    not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"
)
ways = pytest.mark.parametrize("way", [mix, pytest.param(mix_in_one, marks=needs_interpreter)])


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that is allocated and not written holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def draw(tokens: int, choices: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return results, weights and their sum in float64."""
    results, weights = normal(tokens, choices, width), normal(tokens, choices, seed=1)
    return results, weights, (results.double() * weights.double().unsqueeze(-1)).sum(1)


@ways
@given(
    tokens=st.integers(0, 5),
    choices=st.integers(1, 9),
    width=st.sampled_from([1, 7, BLOCK, BLOCK + 1]),
)
def test_it_is_the_sum(way, tokens: int, choices: int, width: int) -> None:  # type: ignore[no-untyped-def]
    results, weights, expected = draw(tokens, choices, width)
    torch.testing.assert_close(way(results, weights).double(), expected, atol=1e-5, rtol=1e-5)


@ways
@pytest.mark.parametrize(("dtype", "step"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
def test_only_the_sum_is_rounded(way, dtype: torch.dtype, step: float) -> None:  # type: ignore[no-untyped-def]
    results, weights, _ = draw(3, 9, 300)
    results = results.to(dtype)
    expected = (results.double() * weights.double().unsqueeze(-1)).sum(1)
    mixed = way(results, weights)
    assert mixed.dtype == dtype
    # Half a step; what cancels has the error of the float32 sum.
    assert ((mixed.double() - expected).abs() <= step * expected.abs() + 1e-5).all()


@needs_interpreter
def test_the_sum_goes_in_the_order_of_the_choices() -> None:
    results, weights, _ = draw(2, 9, 50)
    total = torch.zeros(2, 50)
    for choice in range(9):
        total += weights[:, choice, None] * results[:, choice]
    assert torch.equal(mix_in_one(results, weights), total)


@needs_interpreter
def test_a_gpu_gets_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    results, weights, _ = draw(2, 9, 50)
    monkeypatch.setattr(mixing, "runs_kernels", lambda device: True)
    assert torch.equal(mix(results, weights), mix_in_one(results, weights))


@needs_interpreter
def test_what_has_no_weight_is_not_read() -> None:
    results, weights, _ = draw(4, 3, 70)
    weights[:, 1] = 0
    expected = (results.double() * weights.double().unsqueeze(-1)).sum(1)
    results[:, 1] = torch.nan
    assert torch.allclose(mix_in_one(results, weights).double(), expected, atol=1e-5)
