"""A task: what is asked, with which examples before it, and where an answer ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from random import Random
from typing import Any, Literal

from upcurve.accuracy.items import Item, digest, read_items, read_splits
from upcurve.errors import InputError

Name = Literal["problems", "gsm8k"]
NAMES: tuple[Name, ...] = ("problems", "gsm8k")

PROBLEMS_VERSION = "1"
"""Of the shipped set; another version is another file beside it."""

PROBLEMS_SEED = 1
"""What `problems.held_out(2000, PROBLEMS_SEED)` draws is the shipped set."""

GSM8K_VERSION = "3"
"""Of lm-eval's task, whose prompts and scores these are."""

EXAMPLES_SEED = 1234
"""lm-eval's seed of few-shot examples."""

MAX_TOKENS = 256
"""Output tokens of an answer at most: what lm-eval asks an API for."""


MISSES = 16
"""Examples in a row of draws that do not fit before padding ends."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question with worked examples before it."""

    examples: tuple[Item, ...]
    question: str
    bare: bool = False
    """Whether turns of a chat are the questions alone."""

    @property
    def text(self) -> str:
        """What a completion goes on from."""
        return "".join([*map(_turn, self.examples), _asked(self.question)])

    @property
    def messages(self) -> list[dict[str, str]]:
        """The same as turns of a chat."""
        turns: list[dict[str, str]] = []
        for each in self.examples:
            turns.append({"role": "user", "content": self._turn_of(each.question)})
            turns.append({"role": "assistant", "content": each.answer})
        return [*turns, {"role": "user", "content": self._turn_of(self.question)}]

    def _turn_of(self, question: str) -> str:
        return question if self.bare else _asked(question)


def _asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _turn(example: Item) -> str:
    return f"{_asked(example.question)} {example.answer}\n\n"


@dataclass(frozen=True, slots=True)
class Task:
    """Items that are asked in their order."""

    name: Name
    version: str
    items: tuple[Item, ...]
    pool: tuple[Item, ...]
    """What examples are drawn from."""
    own_pool: bool
    """Whether the items are of the pool; none is its own example."""
    shots: int
    stop: tuple[str, ...] = ("Question:", "</s>", "<|im_end|>")
    max_tokens: int = MAX_TOKENS
    bare: bool = False
    """Whether turns of a chat are the questions alone, without "Question:" and "Answer:"."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: a number is too low, or the pool is too small for the examples.
        """
        if self.shots < 0 or self.max_tokens < 1:
            raise InputError("task", "it has no length", "give --shots 0, --max-tokens 1 or more")
        if self.shots and self.shots >= len(self.pool):
            problem = f"{self.shots} examples of {len(self.pool)} items"
            raise InputError("shots", problem, "give fewer, or a folder with train and test")

    def facts(self) -> dict[str, Any]:
        """Return all that answers depend on but the server, as the record keeps it."""
        return {
            "task": self.name,
            "version": self.version,
            "n": len(self.items),
            "items_sha256": digest(self.items),
            "shots": self.shots,
            "examples_sha256": digest(self.pool) if self.shots else None,
            "max_tokens": self.max_tokens,
        }

    def prompts(self, characters: int | None = None) -> list[Prompt]:
        """Return the prompt of every item.

        Args:
            characters: length that prompts are brought up to with further examples in front; None:
                only those of the task.
        """
        drawn = self._drawn()
        return [
            Prompt(
                (*self._padding(number, item, shots, characters), *shots), item.question, self.bare
            )
            for number, (item, shots) in enumerate(zip(self.items, drawn, strict=True))
        ]

    def _drawn(self) -> Iterator[tuple[Item, ...]]:
        """Yield each item's examples: one generator goes through all items, as in lm-eval."""
        random = Random(EXAMPLES_SEED)  # noqa: S311 - a draw, no secret
        for item in self.items:
            if not self.shots:
                yield ()
            elif not self.own_pool:
                yield tuple(random.sample(self.pool, self.shots))
            else:
                found = _others(random.sample(self.pool, self.shots + 1), item)
                if len(found) < self.shots:
                    found = random.sample(_others(self.pool, item), self.shots)
                yield tuple(found[: self.shots])

    def _padding(
        self, number: int, item: Item, shots: Sequence[Item], characters: int | None
    ) -> list[Item]:
        """Draw further examples while one fits: each item has its own, so no cache serves them."""
        left = (characters or 0) - len(Prompt(tuple(shots), item.question).text)
        random = Random(f"{EXAMPLES_SEED} {number}")  # noqa: S311
        found: list[Item] = []
        misses = 0
        while left > 0 and misses < MISSES:
            each = random.choice(self.pool)
            if each.question == item.question or len(_turn(each)) > left:
                misses += 1
                continue
            found.append(each)
            left -= len(_turn(each))
        return found


def _others(items: Sequence[Item], item: Item) -> list[Item]:
    return [each for each in items if (each.question, each.answer) != (item.question, item.answer)]


def problems(*, limit: int | None = None, shots: int = 0, max_tokens: int = MAX_TOKENS) -> Task:
    """Return the shipped problem set: 2,000 held-out word problems, asked without examples.

    Raises:
        InputError: a number cannot be used.
    """
    source = files("upcurve.accuracy") / "sets" / f"problems-{PROBLEMS_VERSION}.jsonl"
    with as_file(source) as path:
        items = tuple(read_items(path))
    asked = _limited(items, limit)
    return Task(
        "problems", PROBLEMS_VERSION, asked, items, True, shots, max_tokens=max_tokens, bare=True
    )


def gsm8k(
    data: Path, *, limit: int | None = None, shots: int = 5, max_tokens: int = MAX_TOKENS
) -> Task:
    """Return GSM8K from a local copy.

    Examples come from its `train`; where `data` is one file they come from that file, as lm-eval
    draws them where both splits are the same.

    Args:
        data: a file of items, or a folder with `test` and `train`.
        limit: items to ask, from the first.
        shots: worked examples before each question.
        max_tokens: output tokens of an answer at most.

    Raises:
        InputError: the data or a number cannot be used.
    """
    items, train = read_splits(data)
    pool = tuple(items if train is None else train)
    asked = _limited(tuple(items), limit)
    return Task("gsm8k", GSM8K_VERSION, asked, pool, train is None, shots, max_tokens=max_tokens)


def load_task(
    name: Name,
    data: Path | None = None,
    *,
    limit: int | None = None,
    shots: int | None = None,
    max_tokens: int | None = None,
) -> Task:
    """Return a task by its name; None takes its own setting.

    Raises:
        InputError: data is missing, not taken, or cannot be used.
    """
    given = {"limit": limit, "shots": shots, "max_tokens": max_tokens}
    asked = {key: value for key, value in given.items() if value is not None}
    if name == "problems":
        if data is not None:
            raise InputError("data", "the task problems ships its own", "leave it out")
        return problems(**asked)
    if data is None:
        problem = "gsm8k is asked from a local copy, and none is named"
        raise InputError("data", problem, "give a file or a folder with test and train")
    return gsm8k(data, **asked)


def _limited(items: tuple[Item, ...], limit: int | None) -> tuple[Item, ...]:
    if limit is not None and not 1 <= limit <= len(items):
        raise InputError("limit", f"{limit} of {len(items)} items", f"give 1 to {len(items)}")
    return items[:limit]
