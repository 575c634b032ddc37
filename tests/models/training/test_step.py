from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from models.training.data import make_block
from models.training.network import Network
from models.training.optimizer import Optimizer
from models.training.start import start
from models.training.step import AHEAD_WEIGHT, BALANCE_WEIGHT, Step, losses
from models.training.train import schedule
from tests.models.training.conftest import TINY, random_network


def test_losses_weigh_the_next_token_and_the_one_after() -> None:
    network = random_network()
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(TINY.vocab_size, (2, 66), generator=generator)
    weights = torch.rand(2, 66, generator=generator)
    with torch.no_grad():
        total, following, after, balance = losses(network, tokens, weights)
        hidden, _ = network.hidden(tokens[:, :64])
        log_odds = network.logits(hidden).log_softmax(-1)
    wanted, weight = 0.0, 0.0
    for row in range(2):
        for place in range(64):
            each = weights[row, place + 1]
            wanted -= each * log_odds[row, place, tokens[row, place + 1]]
            weight += each
    torch.testing.assert_close(following, wanted / weight)
    assert after > 0
    torch.testing.assert_close(total, following + AHEAD_WEIGHT * after + BALANCE_WEIGHT * balance)


def test_the_head_ahead_sees_no_token_that_it_predicts() -> None:
    network = random_network()
    tokens = torch.randint(TINY.vocab_size, (1, 66), generator=torch.Generator().manual_seed(2))
    changed = tokens.clone()
    changed[0, 40] = (changed[0, 40] + 1) % TINY.vocab_size
    with torch.no_grad():
        first, second = (
            network.ahead(network.hidden(each[:, :64])[0], each[:, 1:65])
            for each in (tokens, changed)
        )
    # Place i has seen tokens up to i + 1.
    assert torch.equal(first[0, :39], second[0, :39])
    assert not torch.equal(first[0, 39], second[0, 39])


def test_training_lowers_the_loss_from_that_of_chance(tokenizer: Tokenizer) -> None:
    network = Network(TINY)
    start(network, seed=0)
    optimizer = Optimizer(network, matrix_rate=0.02, other_rate=0.01)
    step = Step(network, optimizer, rows=2, length=256, compiled=False, graph=False)
    block = make_block(tokenizer, 1, 2, 256)
    step(block, 1.0)
    begun = step.losses()["next_token"]
    chance = F.cross_entropy(torch.zeros(1, TINY.vocab_size), torch.zeros(1, dtype=torch.long))
    assert begun == pytest.approx(chance.item(), abs=1e-3)
    for _ in range(20):
        step(block, 1.0)
    assert step.losses()["next_token"] < begun / 2


def test_a_loss_that_is_no_number_ends_the_training(tokenizer: Tokenizer) -> None:
    network = random_network()
    with torch.no_grad():
        network.lm_head.weight[0, 0] = torch.nan
    optimizer = Optimizer(network, matrix_rate=0.02, other_rate=0.01)
    step = Step(network, optimizer, rows=2, length=448, compiled=False, graph=False)
    step(make_block(tokenizer, 1, 2, 448), 0.0)
    with pytest.raises(FloatingPointError, match="diverged"):
        step.losses()


def test_rates_rise_stay_and_fall() -> None:
    assert schedule(0.0) == 0.0
    assert schedule(0.005) == pytest.approx(0.5)
    assert schedule(0.01) == schedule(0.3) == schedule(0.54) == 1.0
    assert schedule(0.775) == pytest.approx(0.5)
    assert schedule(1.0) == 0.0
