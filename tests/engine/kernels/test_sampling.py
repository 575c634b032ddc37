"""Drawing tokens: the kernel and torch against the definition in float64, token by token."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from upcurve.engine.kernels.sampling import (
    Draw,
    draw,
    draw_reference,
    gumbel_noise,
    packed,
    philox,
)
from upcurve.engine.kernels.sampling_kernels import draw_kernels
from upcurve.engine.kernels.sampling_tile import gumbel_bound_of
from upcurve.engine.platform import HAS_TRITON, tl, triton

NO_TOKEN = -1
ways = pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            partial(draw, no_token=NO_TOKEN),
            id="torch",
        ),
        pytest.param(
            partial(draw_kernels, no_token=NO_TOKEN),
            id="kernels",
            marks=pytest.mark.skipif(not HAS_TRITON, reason="there is no Triton"),
        ),
    ],
)


def draws(rows, **changes):
    """Return how rows are drawn, each with its own number."""
    given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 7, **changes}
    return [Draw(number=row, **given) for row in range(rows)]


def tokens_of(way, logits, how):
    numbers = torch.tensor(packed(how)).view(5, -1)
    few, wide = any(each.few for each in how), any(each.wide for each in how)
    return way(logits, numbers, few=few, wide=wide).tolist()


def oracle(logits, how):
    """Return the token ids that are kept and their probabilities, in float64."""
    values = logits.double().numpy()
    p = np.exp((values - values.max()) / how.temperature)
    p /= p.sum()
    kept, mass = [], 0.0
    for rank, token in enumerate(np.lexsort((np.arange(len(p)), -values))):
        if (how.top_k and rank >= how.top_k) or (kept and mass >= how.top_p):
            break
        kept.append(int(token))
        mass += p[token]
    return kept, p[kept] / p[kept].sum()


def expected_token(logits, how):
    """Return the kept token with the highest score, by the definition."""
    if how.temperature == 0:
        return int(np.argmax(logits.double().numpy()))
    kept, _ = oracle(logits, how)
    noise = gumbel_noise(torch.tensor(how.seed), torch.tensor(how.number), len(logits))
    score = logits[kept].double() / how.temperature + noise[kept].double()
    return kept[int(score.argmax())]


def test_words_are_those_of_philox():
    """Known answers of Random123 1.14 (tests/kat_vectors), seven rounds."""
    for counter, number, seed, words in ((0, 0, 0, "5f6fb709 0d893f64 4f121f81 4f730a48"),):
        found = philox(torch.tensor([counter]), torch.tensor(number), torch.tensor(seed))
        assert [f"{each.item():08x}" for each in found] == words.split()


def test_noise_is_gumbel_and_differs_by_seed_number_and_token():
    ids = 10_000
    noise = [
        gumbel_noise(torch.tensor(seed), torch.tensor(number), ids)
        for seed, number in ((0, 0), (0, 1), (0, 2**32), (1, 0), (2**32, 0), (-1, 2**62))
    ]
    for one in noise:
        # The distribution function of each is uniform: in ten bins.
        u = torch.exp(-torch.exp(-one.double()))
        assert chisquare(torch.histc(u, 10, 0, 1)).pvalue > 1e-4
    together = np.corrcoef(torch.stack(noise).numpy()) - np.eye(len(noise))
    assert abs(together).max() < 5 / math.sqrt(ids)
    assert torch.equal(noise[0][:100], gumbel_noise(torch.tensor(0), torch.tensor(0), 100))


@ways
@settings(max_examples=12)
@given(data=st.data())
def test_the_token_is_that_of_the_definition(way, data):
    vocabulary = data.draw(st.sampled_from([1, 2, 127, 130, 2048, 3000, 8192, 9000]))
    rows = data.draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    spread = data.draw(st.sampled_from([0.0, 0.5, 3.0]))
    logits = torch.randn(rows, vocabulary, generator=generator) * spread
    # Many are equal.
    logits = logits.bfloat16() if data.draw(st.booleans()) else logits
    how = [
        Draw(
            temperature=data.draw(st.sampled_from([0.0, 0.5, 1.0, 1.7])),
            top_k=data.draw(st.sampled_from([0, 1, 5, 50, 5000])),
            # No sum of equal probabilities comes near these.
            top_p=data.draw(st.sampled_from([1.0, 0.90123, 0.30117, 1e-9])),
            seed=data.draw(st.integers(-(2**63), 2**63 - 1)),
            number=data.draw(st.integers(0, 2**63 - 1)),
        )
        for _ in range(rows)
    ]
    found = tokens_of(way, logits, how)
    assert found == [expected_token(*each) for each in zip(logits, how, strict=True)]


def logits_of(kind, rows, vocabulary, generator):
    """Return logits of which top-p alone may keep most, or one, or the first of equal ones."""
    normal = torch.randn(rows, vocabulary, generator=generator)
    if kind == "equal":
        return torch.zeros(rows, vocabulary)
    if kind == "two values":
        return torch.where(normal > 0.5, 1.0, -1.0)
    if kind == "nothing":
        normal[:, 1:] = normal[:, 1:].masked_fill(normal[:, 1:] < 0.3, -math.inf)
    if kind == "one huge":
        normal[:, vocabulary // 2] = 12.0
    return normal * (0.01 if kind == "flat" else 1.0)


@ways
@settings(max_examples=10, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_top_p_alone_over_many_tokens(way, data):
    kinds = ["flat", "equal", "two values", "one huge", "nothing"]
    rows, vocabulary = 2, data.draw(st.sampled_from([900, 8192, 8193, 20_000]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    logits = logits_of(data.draw(st.sampled_from(kinds)), rows, vocabulary, generator)
    logits = logits.bfloat16() if data.draw(st.booleans()) else logits
    how = [
        Draw(
            temperature=data.draw(st.sampled_from([0.7, 1.0])),
            top_k=0,
            top_p=data.draw(st.sampled_from([0.95017, 0.51171, 0.10119, 0.00317, 1e-9])),
            seed=data.draw(st.integers(-(2**63), 2**63 - 1)),
            number=data.draw(st.integers(0, 2**63 - 1)),
        )
        for _ in range(rows)
    ]
    found = tokens_of(way, logits, how)
    assert found == [expected_token(*each) for each in zip(logits, how, strict=True)]


@pytest.mark.skipif(not HAS_TRITON, reason="there is no Triton")
def test_no_noise_is_above_its_bound():
    words = torch.randint(0, 2**32, (60_000,), generator=torch.Generator().manual_seed(0))
    edges = 2 ** torch.arange(32)
    words = torch.cat([torch.arange(1000), words, edges, edges - 1, 2 * edges - 1])
    u = ((words.float() + 0.5) * 2.0**-32).clamp_max_(1 - 2.0**-24).double()
    noise = -(-torch.log1p(-u)).log()
    bound = torch.empty(len(words))
    _bounds[(1,)](
        words.to(torch.int32), bound, len(words), lanes=triton.next_power_of_2(len(words))
    )
    # Of rounding the noise in float32 has at most its own.
    assert (noise * (1 + 1e-6) <= bound).all()
    many = words > 1000
    assert (bound + u.log())[many].max() < 0.07


@triton.jit
def _bounds(words, bounds, count, lanes: tl.constexpr):
    lane = tl.arange(0, lanes)
    word = tl.load(words + lane, mask=lane < count, other=0).to(tl.uint32, bitcast=True)
    tl.store(bounds + lane, gumbel_bound_of(word), mask=lane < count)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 2.0, "top_k": 3},
        {"top_p": 0.7},
        {"top_k": 4, "top_p": 0.85, "temperature": 1.3},
        {"top_k": 99},
    ],
)
def test_frequencies_are_those_of_the_definition(changes):
    # Ties at both edges, and a token without probability.
    logits = torch.tensor([1.0, 0.5, 1.5, 1.0, -math.inf, 0.5, -1.0])
    how = draws(400, **changes)
    numbers = torch.tensor(packed(how)).view(5, -1)
    drawn = draw_reference(logits.repeat(400, 1), numbers, no_token=NO_TOKEN)
    counts = np.bincount(drawn, minlength=7)
    kept, p = oracle(logits, how[0])
    outside = [token for token in range(7) if token not in kept]
    assert counts[outside].sum() == 0
    possible = p > 0
    assert chisquare(counts[kept][possible], 400 * p[possible]).pvalue > 1e-4


@ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_lowest_of_equal_tokens_comes_first(way, dtype):
    logits = torch.zeros(3, 2500, dtype=dtype)
    # Zeros are equal whatever their sign.
    logits[1, :1000] = -0.0
    for how, most in (
        (draws(3, temperature=0.0), 1),
        (draws(3, top_k=1), 1),
        (draws(3, top_p=1e-9), 1),
        (draws(3, top_k=3), 3),
        (draws(3, top_p=1e-3), 3),
    ):
        assert max(tokens_of(way, logits, how)) < most


@ways
def test_more_tokens_can_be_kept_than_are_looked_at_at_once(way):
    logits = torch.zeros(6, 3000, dtype=torch.bfloat16)
    logits[:, ::3] = -1.0
    found = tokens_of(way, logits, draws(6, top_k=1500))
    # 1,500 of the first 2,250: each third is less likely.
    assert all(token % 3 for token in found)
    assert 1000 < max(found) < 2250
    assert len(set(found)) == 6


@ways
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf])
@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {}, {"top_k": 3}])
def test_logits_that_are_not_finite_give_no_token(way, bad, changes):
    logits = torch.linspace(-1, 1, 8500).repeat(3, 1)
    logits[0, 8400] = -math.inf
    logits[1, 20] = bad
    logits[2] = -math.inf
    found = tokens_of(way, logits, draws(3, **changes))
    assert found[0] >= 0
    assert found[1:] == [NO_TOKEN, NO_TOKEN]


@ways
def test_a_row_does_not_depend_on_its_company(way):
    logits = torch.randn(5, 9000, generator=torch.Generator().manual_seed(0))
    how = [
        Draw(0.0, 0, 1.0, 1, 1),
        Draw(1.0, 0, 1.0, 2, 2),
        Draw(0.8, 40, 1.0, 3, 3),
        Draw(1.2, 0, 0.9, 4, 4),
        Draw(1.0, 7, 0.5, 5, 5),
    ]
    together = tokens_of(way, logits, how)
    alone = [tokens_of(way, logits[i : i + 1], how[i : i + 1])[0] for i in range(5)]
    # Rows of a larger tensor are as good.
    wide = torch.cat([logits, logits], 1)[:, :9000]
    assert together == alone == tokens_of(way, wide, how)


@ways
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_tiny_temperature_is_greedy(way, top_p):
    logits = torch.tensor([[300.0, 100.0, 300.5, -200.0]])
    for temperature in (1e-6, 1e-30, 1e-45, 1e-60, 5e-324):
        assert tokens_of(way, logits, draws(1, temperature=temperature, top_p=top_p)) == [2]


@ways
def test_greedy_rows_need_no_numbers(way):
    logits = torch.tensor([[0.0, 3.0, 3.0], [5.0, 5.0, 5.0], [0.0, math.nan, 1.0]])
    for dtype in (torch.float32, torch.bfloat16):
        assert way(logits.to(dtype), None, few=False, wide=False).tolist() == [1, 0, NO_TOKEN]
