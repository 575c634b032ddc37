"""Statistics of logits, against SciPy's and against what is known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import rel_entr, softmax

from upcurve.engine.fidelity.divergence import diverge, kl_of_rows, perplexity

LOGITS = arrays.arrays(
    np.float32, (5, 7), elements=st.floats(-30, 30, width=32, allow_subnormal=False)
)


@given(wanted=LOGITS, found=LOGITS)
def test_kl_is_scipys(wanted: np.ndarray, found: np.ndarray) -> None:
    p, q = (softmax(each.astype(np.float64), axis=-1) for each in (wanted, found))
    got = kl_of_rows(torch.from_numpy(wanted), torch.from_numpy(found))
    np.testing.assert_allclose(got.numpy(), rel_entr(p, q).sum(-1), rtol=1e-9, atol=1e-12)


@given(logits=LOGITS, shift=st.floats(-20, 20))
def test_equal_distributions_do_not_diverge_whatever_is_added(
    logits: np.ndarray, shift: float
) -> None:
    rows = torch.from_numpy(logits).double()
    assert kl_of_rows(rows, rows + shift).max() < 1e-12


def test_many_rows_are_those_of_few() -> None:
    wanted, found = torch.randn(2, 150, 11)
    rows = [kl_of_rows(a[None], b[None]) for a, b in zip(wanted, found, strict=True)]
    torch.testing.assert_close(kl_of_rows(wanted, found), torch.cat(rows))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_diverge_infinitely(bad: float) -> None:
    wanted = {"a": torch.randn(3, 4)}
    found = {"a": wanted["a"].clone()}
    found["a"][1, 2] = bad
    got = diverge(wanted, found, {"a": [0, 1, 2]})
    assert got.kl_mean == got.kl_max == got.kl_p99 == math.inf
    assert kl_of_rows(wanted["a"], found["a"]).tolist() == [0, math.inf, 0]
    assert got.perplexity == math.inf


def test_a_text_of_two_passages() -> None:
    # Over two tokens: log odds of 0 and of log 3, so that p is 1/2 and 3/4.
    even, odd = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])
    wanted = {"a": even.repeat(3, 1), "b": odd}
    found = {"a": even.repeat(3, 1), "b": -odd}
    got = diverge(wanted, found, {"a": [0, 1, 0], "b": [0]})
    of_b = 0.5 * math.log(3.0)
    assert got.tokens == 4
    assert got.kl_mean == pytest.approx(of_b / 4)
    # Three of 0 and one of b: a standard deviation of sqrt(3) / 4 of it.
    assert got.kl_error == pytest.approx(of_b * math.sqrt(3) / 4 / 2)
    assert got.kl_max == got.kl_p99 == pytest.approx(of_b)
    assert (got.worst, got.worst_kl) == ("b", pytest.approx(of_b))
    assert got.agreement == 0.75
    assert got.perplexity == pytest.approx((2 * 2 * 2 * 4) ** 0.25)
    assert perplexity(wanted, {"a": [0, 1, 0], "b": [0]}) == pytest.approx(
        (2 * 2 * 2 * 4 / 3) ** 0.25
    )
