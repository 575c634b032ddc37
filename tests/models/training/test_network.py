from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer

from models.training.checkpoint import read_checkpoint
from models.training.decode import Decoder
from models.training.network import Network
from tests.engine.model import oracle
from tests.models.training.conftest import TINY


def ids(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, TINY.vocab_size, (count,), generator=generator).tolist()


def test_logits_are_those_of_transformers(folder: Path, network: Network) -> None:
    reference = oracle.load_transformers(folder)
    for seed in range(3):
        sequence = ids(128, seed)
        with torch.no_grad():
            hidden, _ = network.hidden(torch.tensor([sequence]))
            logits = network.logits(hidden)[0]
        wanted = oracle.transformers_logits(reference, sequence)
        torch.testing.assert_close(logits, wanted, rtol=0, atol=oracle.TOLERANCE)
        assert wanted.std() > 0.3


def test_the_engine_loads_the_checkpoint_and_agrees(folder: Path, network: Network) -> None:
    model = oracle.load(folder)
    sequence = ids(128, 5)
    with torch.no_grad():
        logits = network.logits(network.hidden(torch.tensor([sequence]))[0])[0]
    memory = oracle.new_memory(model)
    got = oracle.in_pieces(model, memory, sequence, [50, 1, 77])
    torch.testing.assert_close(got, logits, rtol=0, atol=oracle.TOLERANCE)


def test_greedy_answers_are_those_of_the_engine(folder: Path, network: Network) -> None:
    model = oracle.load(folder)
    memory = oracle.new_memory(model)
    prompts = [ids(count, count) for count in (3, 20, 41)]
    answers = Decoder(network, 3, 64, graphs=False).run(prompts, [TINY.vocab_size])
    for prompt, answer in zip(prompts, answers, strict=True):
        steps = 64 - len(prompt)
        assert answer[:steps] == oracle.greedy(model, memory, prompt, steps)[len(prompt) :]


def test_an_answer_stops_before_its_end_and_others_go_on(network: Network) -> None:
    prompts = [ids(count, count) for count in (3, 20, 41)]
    answers = Decoder(network, 3, 64, graphs=False).run(prompts, [TINY.vocab_size])
    end = answers[0][5]
    stopped = Decoder(network, 3, 64, graphs=False).run(prompts, [end])
    assert stopped[0] == answers[0][: answers[0].index(end)]
    for short, whole in zip(stopped, answers, strict=True):
        assert short == (whole[: whole.index(end)] if end in whole else whole)


def test_a_checkpoint_read_back_is_the_same_network(folder: Path, network: Network) -> None:
    again, tokenizer = read_checkpoint(folder)
    assert again.shape == TINY
    wanted = network.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in again.state_dict().items())
    assert tokenizer.to_str() == Tokenizer.from_file(str(folder / "tokenizer.json")).to_str()


def test_balance_is_one_where_experts_are_even() -> None:
    network = Network(TINY)
    with torch.no_grad():
        _, balance = network.hidden(torch.tensor([ids(64, 1)]))
    assert abs(balance.item() - 1.0) < 1e-6
