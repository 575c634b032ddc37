"""A story in the making: its sentences, its worked steps and its draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from upcurve.accuracy.problems import words

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wording:
    """The ways to say one sentence, in format fields; training never sees the unseen ones."""

    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, with the words that refer to her or him."""

    name: str
    he: str
    his: str

    @property
    def He(self) -> str:  # noqa: N802
        """The pronoun at the start of a sentence."""
        return self.he.capitalize()

    def __str__(self) -> str:
        return self.name


class Story:
    """Sentences and steps of one problem, drawn from one stream of random numbers.

    Args:
        random: what every draw comes from.
        held_out: whether unseen wordings may be drawn (each with even chance).
    """

    def __init__(self, random: Random, *, held_out: bool) -> None:
        self.random = random
        self._held_out = held_out
        self._sentences: list[str] = []
        self._steps: list[str] = []
        self._wordings: list[str] = []
        self.unseen = 0
        """Sentences in an unseen wording."""

    def say(self, wording: Wording, **fields: object) -> None:
        """Add a sentence to the question."""
        unseen = self._held_out and self.random.random() < 0.5
        texts = wording.unseen if unseen else wording.seen
        place = self.random.randrange(len(texts))
        self.unseen += unseen
        self._wordings.append(f"{wording.name}{'*' if unseen else ''}{place}")
        text = texts[place].format(**fields)
        self._sentences.append(text[0].upper() + text[1:])

    def work(self, step: str) -> None:
        """Add a worked step to the answer."""
        self._steps.append(step)

    @property
    def question(self) -> str:
        """All sentences so far."""
        return " ".join(self._sentences)

    @property
    def steps(self) -> list[str]:
        """All worked steps so far."""
        return self._steps

    @property
    def template(self) -> str:
        """The wordings of all sentences, in order; unseen ones are starred."""
        return " ".join(self._wordings)

    def number(self, low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        return self.random.randint(low, high)

    def amount(self, low: int = 3, high: int = 999) -> int:
        """Draw an amount: small ones are likelier than large ones."""
        top = self.random.choice([20, 60, 100, 100, 250, 600, 1000, 2000])
        return self.random.randint(low, max(low, min(high, top)))

    def choice(self, values: Sequence[T]) -> T:
        """Draw one of some values."""
        return self.random.choice(values)

    def people(self, count: int) -> list[Person]:
        """Draw different persons."""
        drawn = self.random.sample([*words.GIRLS, *words.BOYS], count)
        return [
            Person(name, "she", "her") if name in words.GIRLS else Person(name, "he", "his")
            for name in drawn
        ]

    def things(self, count: int) -> list[str]:
        """Draw different kinds of things."""
        return self.random.sample(words.THINGS, count)
