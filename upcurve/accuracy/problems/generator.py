"""Problems by seed: an endless stream to train on, and a set that training never sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from upcurve.accuracy.problems import (
    collecting,
    comparing,
    growing,
    sharing,
    shopping,
    timing,
    working,
)
from upcurve.accuracy.problems.arithmetic import UnfitError
from upcurve.accuracy.problems.problem import MARK, Problem
from upcurve.accuracy.problems.ranges import has_held_out
from upcurve.accuracy.problems.story import Story

LARGEST = 20_000
"""Of all answers."""

FAMILIES: dict[str, Callable[[Story], int]] = {
    name: tell
    for room in (collecting, comparing, growing, sharing, shopping, timing, working)
    for name, tell in room.FAMILIES.items()
}
"""Each tells one kind of story and returns its answer."""


def training(seed: int) -> Iterator[Problem]:
    """Yield problems without end: seen wordings only, no given number in a held-out range."""
    random = Random(f"training {seed}")  # noqa: S311
    number = 0
    while True:
        problem = _draw(random, f"train-{seed}-{number}", held_out=False)
        if problem is not None:
            number += 1
            yield problem


def held_out(count: int, seed: int) -> list[Problem]:
    """Return problems that training never sees, all different.

    Each has at least one sentence in a wording, and at least one given number in a range, that no
    training problem has. Families come in turns, so that their counts differ by one at most.

    Args:
        count: of problems.
        seed: of all draws; the first problems of a longer set are those of a shorter one.
    """
    random = Random(f"held out {seed}")  # noqa: S311
    families = list(FAMILIES)
    problems: list[Problem] = []
    questions: set[str] = set()
    while len(problems) < count:
        place = len(problems)
        family = families[place % len(families)]
        problem = _draw(random, f"held-out-{seed}-{place}", held_out=True, family=family)
        if problem is not None and problem.question not in questions:
            questions.add(problem.question)
            problems.append(problem)
    return problems


def _draw(random: Random, name: str, *, held_out: bool, family: str = "") -> Problem | None:
    """Draw one problem; None where it does not fit the side that is asked for."""
    family = family or random.choice(list(FAMILIES))
    story = Story(random, held_out=held_out)
    try:
        result = FAMILIES[family](story)
    except UnfitError:
        return None
    question = story.question
    if has_held_out(question) != held_out or bool(story.unseen) != held_out:
        return None
    if not 0 < result <= LARGEST:
        return None
    answer = "\n".join([*story.steps, f"{MARK}{result}"])
    return Problem(name, question, answer, str(result), f"{family}: {story.template}")
