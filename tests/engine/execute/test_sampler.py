import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from upcurve.engine.execute.device import NO_TOKEN
from upcurve.engine.execute.sampler import Sampler, token_logprobs
from upcurve.engine.schedule.request import SamplingParameters

CPU = torch.device("cpu")
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, 1.5, -3.0, 0.2])


def parameters(**changes):
    return SamplingParameters(max_tokens=1, **changes)


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
    rows, rounds = 500, 20
    sampler = Sampler(CPU, seed=1)
    drawn = []
    for _ in range(rounds):
        names = [str(row) for row in range(rows)]
        tokens = sampler.sample(LOGITS.repeat(rows, 1), names, [parameters(**changes)] * rows)
        drawn += tokens.tolist()
    expected = oracle(LOGITS, **changes) * rows * rounds
    counts = np.bincount(drawn, minlength=len(LOGITS))
    assert (counts[expected == 0] == 0).all()
    assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 1e-4


def test_greedy_takes_the_lowest_of_equal_tokens_and_top_k_1_is_greedy():
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0], [5.0, 5.0, 5.0, 5.0]])
    sampler = Sampler(CPU, seed=0)
    for changes in ({"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9}):
        drawn = sampler.sample(logits, ["a", "b"], [parameters(**changes)] * 2)
        assert drawn.tolist() == [1, 0]


def test_a_seeded_request_does_not_depend_on_its_company():
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    seeded = parameters(seed=11, temperature=0.9)
    alone = Sampler(CPU, seed=1)
    expected = [alone.sample(logits[i : i + 1], ["mine"], [seeded])[0] for i in range(6)]
    company = Sampler(CPU, seed=2)
    others = [parameters(top_k=4), parameters(temperature=0), parameters(seed=5, top_p=0.5)]
    found = []
    for i in range(6):
        rows = torch.cat([logits[:3].flip(1), logits[i : i + 1]])
        tokens = company.sample(rows, ["x", "y", "z", "mine"], [*others, seeded])
        found.append(tokens[3])
    assert found == expected


def test_a_forgotten_seed_starts_anew():
    logits = torch.zeros(1, 1000)
    sampler = Sampler(CPU, seed=0)
    seeded = [parameters(seed=3)]
    first = [sampler.sample(logits, ["a"], seeded)[0] for _ in range(5)]
    sampler.forget("a")
    assert [sampler.sample(logits, ["a"], seeded)[0] for _ in range(5)] == first
    assert len(set(first)) > 1


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-45, 1e-60, 5e-324])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_tiny_temperature_is_greedy(temperature, top_p):
    """Also one that float32 cannot hold."""
    sampler = Sampler(CPU, seed=0)
    logits = LOGITS.flip(0)[None] * 100
    drawn = sampler.sample(logits, ["a"], [parameters(temperature=temperature, top_p=top_p)])
    assert drawn.tolist() == [7]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("changes", [{"temperature": 0}, {}, {"top_k": 3}])
def test_logits_that_are_not_finite_give_no_token(bad, changes):
    logits = LOGITS.repeat(3, 1)
    logits[1, 4] = bad
    logits[2, :] = -float("inf")
    logits[0, 4] = -float("inf")
    drawn = Sampler(CPU, seed=0).sample(logits, ["a", "b", "c"], [parameters(**changes)] * 3)
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
