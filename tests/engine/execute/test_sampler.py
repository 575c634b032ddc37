import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from upcurve.engine.execute.device import NO_TOKEN
from upcurve.engine.execute.sampler import Sampler, token_logprobs
from upcurve.engine.schedule.request import Request, SamplingParameters
from upcurve.engine.schedule.scheduler import Scheduled

CPU = torch.device("cpu")
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, 1.5, -3.0, 0.2])


def parameters(**changes):
    return SamplingParameters(max_tokens=1, **changes)


def entries(rows, *, output=0, **changes):
    """Return entries that draw, of requests with so many tokens of output."""
    return [
        Scheduled(Request(str(row), [0] * 3, parameters(**changes)), 0, 3 + output, draws=True)
        for row in range(rows)
    ]


def oracle(logits, temperature=1.0, top_k=0, top_p=1.0):
    """Probabilities by the definition, in float64, one token at a time."""
    p = np.exp(np.array(logits, dtype=np.float64) / temperature)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    kept, mass = [], 0.0
    for rank, token in enumerate(order):
        if (top_k and rank >= top_k) or (kept and mass >= top_p):
            break
        kept.append(token)
        mass += p[token]
    q = np.zeros_like(p)
    q[kept] = p[kept]
    return q / q.sum()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_p": 0.7},
        {"top_k": 5, "top_p": 0.6, "temperature": 1.3},
    ],
)
def test_frequencies_are_those_of_the_definition(changes):
    rows, rounds = 400, 2
    sampler = Sampler(CPU, seed=1)
    drawn = []
    for _ in range(rounds):
        tokens = sampler.sample(LOGITS.repeat(rows, 1), entries(rows, **changes))
        drawn += tokens.tolist()
    expected = oracle(LOGITS, **changes) * rows * rounds
    counts = np.bincount(drawn, minlength=len(LOGITS))
    assert (counts[expected == 0] == 0).all()
    assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 1e-4


def test_greedy_takes_the_lowest_of_equal_tokens_and_top_k_1_is_greedy():
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0], [5.0, 5.0, 5.0, 5.0]])
    sampler = Sampler(CPU, seed=0)
    for changes in ({"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9}):
        drawn = sampler.sample(logits, entries(2, **changes))
        assert drawn.tolist() == [1, 0]


def test_a_seeded_request_does_not_depend_on_its_company():
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    seeded = {"seed": 11, "temperature": 0.9}
    alone = Sampler(CPU, seed=1)
    expected = [
        alone.sample(logits[i : i + 1], entries(1, output=i, **seeded)).item() for i in range(6)
    ]
    company = Sampler(CPU, seed=2)
    others = [{"top_k": 4}, {"temperature": 0}, {"seed": 5, "top_p": 0.5}]
    # In any order, too: a step may be computed anew.
    for i in (3, 0, 5, 1, 2, 4, 3):
        rows = torch.cat([logits[:3].flip(1), logits[i : i + 1]])
        beside = [entry for changes in others for entry in entries(1, **changes)]
        tokens = company.sample(rows, [*beside, *entries(1, output=i, **seeded)])
        assert tokens[3] == expected[i]


def test_preemption_does_not_change_the_draw():
    """What was output is computed as if it were of the prompt, or one token at a time."""
    request = Request("a", [0] * 4, parameters(seed=3))
    logits = torch.zeros(1, 1000)
    sampler = Sampler(CPU, seed=0)
    drawn = {
        sampler.sample(logits, [Scheduled(request, begin, 9 - begin, draws=True)]).item()
        for begin in (0, 5, 8)
    }
    assert len(drawn) == 1


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**63 - 1])
def test_all_seeds_give_a_sequence_of_their_own(seed):
    logits = torch.zeros(1, 1000)
    sampler = Sampler(CPU, seed=seed)
    seeded = [sampler.sample(logits, entries(1, output=i, seed=seed)).item() for i in range(5)]
    assert len(set(seeded)) > 1
    # Nor are requests without a seed those with the engine's.
    unseeded = [sampler.sample(logits, entries(1, output=i)).item() for i in range(5)]
    assert unseeded != seeded
    again = Sampler(CPU, seed=seed)
    assert unseeded == [again.sample(logits, entries(1)).item() for _ in range(5)]


def test_the_engine_may_have_any_seed():
    logits = torch.zeros(1, 1000)
    for seed in (-(2**70), 2**64 - 1, 2**200):
        assert 0 <= Sampler(CPU, seed=seed).sample(logits, entries(1)).item() < 1000


def test_a_top_k_beyond_any_vocabulary_keeps_all():
    logits = torch.zeros(1, 1000)
    drawn = [
        Sampler(CPU, seed=0).sample(logits, entries(1, seed=7, top_k=top_k)).item()
        for top_k in (0, 1000, 2**31, 10**30)
    ]
    assert len(set(drawn)) == 1


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-45, 1e-60, 5e-324])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_tiny_temperature_is_greedy(temperature, top_p):
    """Also one that float32 cannot hold."""
    sampler = Sampler(CPU, seed=0)
    logits = LOGITS.flip(0)[None] * 100
    drawn = sampler.sample(logits, entries(1, temperature=temperature, top_p=top_p))
    assert drawn.tolist() == [7]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("changes", [{"temperature": 0}, {}, {"top_k": 3}])
def test_logits_that_are_not_finite_give_no_token(bad, changes):
    logits = LOGITS.repeat(3, 1)
    logits[1, 4] = bad
    logits[2, :] = -float("inf")
    logits[0, 4] = -float("inf")
    drawn = Sampler(CPU, seed=0).sample(logits, entries(3, **changes))
    assert drawn[0] >= 0
    assert drawn[1:].tolist() == [NO_TOKEN, NO_TOKEN]


def test_logprobs_only_where_asked():
    logits, tokens = LOGITS.repeat(3, 1), torch.tensor([0, 1, 2])
    assert token_logprobs(logits, tokens, [parameters()] * 3) is None
    asked = token_logprobs(
        logits, tokens, [parameters(), parameters(logprobs=0), parameters(logprobs=2)]
    )
    found = asked.by_row(3)
    expected = torch.log_softmax(LOGITS.double(), 0)
    assert found[0] is None
    assert found[1].top == ()
    assert found[1].chosen == pytest.approx(expected[1].item(), abs=1e-6)
    assert [token for token, _ in found[2].top] == [0, 5]
