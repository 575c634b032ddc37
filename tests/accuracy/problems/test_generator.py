from __future__ import annotations

import re
from itertools import islice

import pytest

from upcurve.accuracy.problems import FAMILIES, Problem, held_out, training
from upcurve.accuracy.problems.arithmetic import UnfitError, subtract
from upcurve.accuracy.problems.ranges import HELD_OUT_RANGES

EQUATION = re.compile(r"[\d+\-*/ ]+(?: = [\d+\-*/ ]+)+")


@pytest.fixture(scope="module")
def trained() -> list[Problem]:
    return list(islice(training(7), 4000))


@pytest.fixture(scope="module")
def held() -> list[Problem]:
    return held_out(700, 7)


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def within(number: int) -> bool:
    return any(low <= number <= high for low, high in HELD_OUT_RANGES)


def test_every_equation_of_every_step_holds(trained: list[Problem], held: list[Problem]) -> None:
    checked = 0
    for problem in trained + held:
        for chain in EQUATION.findall(problem.answer):
            values = {eval(side) for side in chain.split(" = ")}
            assert len(values) == 1, problem
            checked += 1
    assert checked > 10_000


def test_nothing_is_taken_from_less_than_it(trained: list[Problem], held: list[Problem]) -> None:
    pairs = [
        (int(a), int(b))
        for problem in trained + held
        for a, b in re.findall(r"(\d+) - (\d+) =", problem.answer)
    ]
    assert len(pairs) > 1000
    assert all(a >= b for a, b in pairs)
    with pytest.raises(UnfitError):
        subtract(3, 4)
    assert subtract(4, 4) == ("4 - 4 = 0", 0)


def test_the_target_is_the_last_result(trained: list[Problem], held: list[Problem]) -> None:
    for problem in trained + held:
        *steps, last = problem.answer.split("\n")
        assert last == f"#### {problem.target}"
        assert int(problem.target) in numbers(steps[-1])
        assert int(problem.target) > 0


def test_training_gives_no_number_in_a_held_out_range(trained: list[Problem]) -> None:
    assert not [p for p in trained for n in numbers(p.question) if within(n)]


def test_every_held_out_problem_gives_one(held: list[Problem]) -> None:
    assert all(any(within(n) for n in numbers(p.question)) for p in held)


def test_templates_of_training_and_held_out_are_disjoint(
    trained: list[Problem], held: list[Problem]
) -> None:
    assert not {p.template for p in trained} & {p.template for p in held}


def frame(sentence: str) -> str:
    """A sentence without its names and numbers."""
    return re.sub(r"\d+|\b[A-Z][a-z]+\b", "_", sentence)


def test_a_held_out_problem_has_a_sentence_that_training_never_says(held: list[Problem]) -> None:
    said = {
        frame(sentence)
        for problem in islice(training(8), 20_000)
        for sentence in re.split(r"(?<=[.?]) ", problem.question)
    }
    for problem in held:
        sentences = re.split(r"(?<=[.?]) ", problem.question)
        assert any(frame(sentence) not in said for sentence in sentences), problem


def test_words_of_held_out_problems_are_those_of_training(
    trained: list[Problem], held: list[Problem]
) -> None:
    known = {word for p in trained for word in re.findall(r"[a-z]+", p.question.lower())}
    unknown = {word for p in held for word in re.findall(r"[a-z]+", p.question.lower())} - known
    assert not sorted(unknown)


def test_seeds_repeat_and_differ() -> None:
    assert held_out(60, 3) == held_out(90, 3)[:60]
    assert held_out(20, 3) != held_out(20, 4)
    assert list(islice(training(3), 20)) == list(islice(training(3), 20))
    assert list(islice(training(3), 20)) != list(islice(training(4), 20))


def test_held_out_questions_are_distinct_and_of_all_families(held: list[Problem]) -> None:
    assert len({p.question for p in held}) == len(held)
    counts = [sum(p.template.startswith(f"{name}: ") for p in held) for name in FAMILIES]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == len(held)
