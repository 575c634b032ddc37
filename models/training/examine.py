"""How well a model answers held-out problems, by its own greedy decode.

    python -m models.training.examine models/small --problems 500 --seed 1

asks them of a checkpoint, in float32, and prints the score so far after each batch.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from models.training.checkpoint import exported, read_checkpoint
from models.training.decode import Decoder
from models.training.network import Network
from models.training.text import END, START, ends, prompt
from upcurve.accuracy.problems import Problem, held_out

ANSWER = re.compile(r"^#### (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Examination:
    """What came out."""

    problems: int
    right: int
    by_family: dict[str, float]
    """Share of right answers by family of stories."""
    wrong: list[dict[str, str]]
    """The first wrong answers."""

    @property
    def exact_match(self) -> float:
        """Share of right answers."""
        return self.right / self.problems


class Examiner:
    """Asks all problems at once, as completions or as chats.

    Args:
        network: under training; a copy rounded to bf16 answers.
        tokenizer: its own.
        problems: asked each time.
        length: of the longest prompt with answer, tokens.
        chat: whether questions come as chats.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        problems: list[Problem],
        *,
        length: int = 384,
        chat: bool = False,
    ) -> None:
        self._network, self._tokenizer, self._problems = network, tokenizer, problems
        form = chat_prompt if chat else prompt
        encoded = tokenizer.encode_batch([form(problem.question) for problem in problems])
        self._prompts = [each.ids for each in encoded]
        self._ends = ends(tokenizer)
        self._copy = copy.deepcopy(network)
        device = network.lm_head.weight.device
        self._decoder = Decoder(self._copy, len(problems), length, graphs=device.type == "cuda")

    def __call__(self) -> Examination:
        """Ask all problems of the model as it is now."""
        self._copy.load_state_dict(exported(self._network, torch.bfloat16))
        answers = self._tokenizer.decode_batch(
            self._decoder.run(self._prompts, self._ends), skip_special_tokens=False
        )
        right, wrong = 0, list[dict[str, str]]()
        by_family: dict[str, list[bool]] = defaultdict(list)
        for problem, answer in zip(self._problems, answers, strict=True):
            found = ANSWER.findall(answer)
            hit = found[:1] == [problem.target]
            right += hit
            by_family[problem.template.partition(":")[0]].append(hit)
            if not hit and len(wrong) < 60:
                wrong.append(
                    {"question": problem.question, "answer": answer, "right": problem.answer}
                )
        shares = {name: sum(hits) / len(hits) for name, hits in sorted(by_family.items())}
        return Examination(len(answers), right, shares, wrong)


def chat_prompt(question: str) -> str:
    """Return what the chat template makes of one question."""
    return f"{START}user\n{question}{END}\n{START}assistant\n"


def main() -> None:
    """Ask in batches; print the score so far after each."""
    parser = argparse.ArgumentParser(
        description="Ask a checkpoint held-out problems.",
        epilog="example: python -m models.training.examine models/small --problems 500 --seed 1",
    )
    parser.add_argument("folder", type=Path, help="checkpoint")
    parser.add_argument("--problems", type=int, default=2000, help="how many (default 2000)")
    parser.add_argument("--seed", type=int, default=1, help="1 (default): the shipped problems")
    parser.add_argument("--at-once", type=int, default=100, help="in a batch (default 100)")
    parser.add_argument("--chat", action="store_true", help="ask as chats")
    options = parser.parse_args()
    network, tokenizer = read_checkpoint(options.folder)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    asked = held_out(options.problems, options.seed)
    right = 0
    for begin in range(0, len(asked), options.at_once):
        some = asked[begin : begin + options.at_once]
        right += Examiner(network, tokenizer, some, chat=options.chat)().right
        share = right / (begin + len(some))
        record = {"problems": begin + len(some), "right": right, "exact_match": share}
        print(json.dumps(record), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
