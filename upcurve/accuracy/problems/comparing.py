"""Several people; one has more, fewer or several times what another has."""

from __future__ import annotations

import itertools

from upcurve.accuracy.problems import arithmetic as math
from upcurve.accuracy.problems.story import Story, Wording

FIRST = Wording(
    "first",
    (
        "{p} has {n} {things}.",
        "{p} found {n} {things}.",
        "{p} picked {n} {things}.",
        "{p} made {n} {things} this week.",
        "There are {n} {things} on {p}'s table.",
        "{p} counted {n} {things}.",
    ),
    (
        "This week {p} found {n} {things}.",
        "On the table of {p} there are {n} {things}.",
    ),
)
MORE = Wording(
    "more",
    (
        "{q} has {n} more {things} than {p}.",
        "{q} has {n} more than {p}.",
        "{q} got {n} more {things} than {p} did.",
        "Compared with {p}, {q} has {n} more {things}.",
        "{p} has {n} fewer {things} than {q}.",
        "{q} has as many {things} as {p} and {n} more.",
    ),
    (
        "{q} has {n} {things} more than {p} has.",
        "Compared with {p}, {q} got {n} more.",
    ),
)
FEWER = Wording(
    "fewer",
    (
        "{q} has {n} fewer {things} than {p}.",
        "{q} has {n} fewer than {p}.",
        "{q} got {n} fewer {things} than {p} did.",
        "Compared with {p}, {q} has {n} fewer {things}.",
        "{p} has {n} more {things} than {q}.",
        "{q} has {n} less than {p} has.",
    ),
    (
        "{q} has {n} {things} fewer than {p} has.",
        "Compared with {p}, {q} got {n} fewer.",
    ),
)
TIMES = Wording(
    "timesas",
    (
        "{q} has {k} times as many {things} as {p}.",
        "{q} has {k} times as many as {p}.",
        "The number of {things} {q} has is {k} times that of {p}.",
        "{q} got {k} times as many {things} as {p} did.",
        "For each of {p}'s {things}, {q} has {k}.",
    ),
    (
        "{q} has {k} times the number of {things} that {p} has.",
        "{q} got {k} times as many as {p} has.",
    ),
)
HALF = Wording(
    "half",
    (
        "{q} has half as many {things} as {p}.",
        "{q} has half as many as {p}.",
        "{q} got half the number of {things} that {p} has.",
        "{p} has twice as many {things} as {q}.",
        "The number of {things} {q} has is half that of {p}.",
    ),
    (
        "{q} got half as many {things} as {p} did.",
        "{q} has half the number of {things} {p} has.",
    ),
)
ASK_TOTAL = Wording(
    "total",
    (
        "How many {things} do they have altogether?",
        "How many {things} do they have in total?",
        "What is the total number of {things}?",
        "How many {things} do all of them have together?",
        "Find the total number of {things} they have.",
    ),
    (
        "How many {things} are there altogether?",
        "In total, how many {things} do they have together?",
    ),
)
ASK_ONE = Wording(
    "one",
    (
        "How many {things} does {q} have?",
        "What is the number of {things} {q} has?",
        "Find how many {things} {q} has.",
        "How many does {q} have?",
    ),
    (
        "What number of {things} does {q} have?",
        "Find the number of {things} {q} has.",
    ),
)
ASK_MORE = Wording(
    "difference",
    (
        "How many more {things} does {a} have than {b}?",
        "How many fewer {things} does {b} have than {a}?",
        "What is the difference between the numbers of {things} of {a} and {b}?",
        "By how many {things} is {a} ahead of {b}?",
    ),
    (
        "How many {things} more than {b} does {a} have?",
        "What is the difference between {a}'s and {b}'s numbers of {things}?",
    ),
)


def tell(story: Story) -> int:
    """A chain of comparisons, then one value, a total or a difference."""
    people = story.people(story.choice([2, 2, 3, 3, 4]))
    (things,) = story.things(1)
    values = [story.amount(4)]
    story.say(FIRST, p=people[0], n=values[0], things=things)
    for p, q in itertools.pairwise(people):
        values.append(_compare(story, values[-1], p.name, q.name, things))
    asks = ["total", "total", "one", "difference"]
    ask = story.choice(asks if len(people) < 4 else ["total", "one"])
    highest, lowest = max(values), min(values)
    if ask == "difference" and highest > lowest:
        a, b = people[values.index(highest)], people[values.index(lowest)]
        story.say(ASK_MORE, a=a, b=b, things=things)
        text, result = math.subtract(highest, lowest)
        story.work(f"The difference is {text} {things}.")
        return result
    if ask == "one":
        story.say(ASK_ONE, q=people[-1], things=things)
        return values[-1]
    story.say(ASK_TOTAL, things=things)
    text, result = math.add(*values)
    story.work(f"Together they have {text} {things}.")
    return result


def _compare(story: Story, value: int, p: str, q: str, things: str) -> int:
    kinds = ["more"]
    kinds += ["fewer"] if value > 3 else []
    kinds += ["times"] if value <= 300 else []
    kinds += ["half"] if value % 2 == 0 else []
    kind = story.choice(kinds)
    if kind == "more":
        n = story.amount(2, 500)
        story.say(MORE, p=p, q=q, n=n, things=things)
        text, result = math.add(value, n)
    elif kind == "fewer":
        n = story.number(1, value - 1)
        story.say(FEWER, p=p, q=q, n=n, things=things)
        text, result = math.subtract(value, n)
    elif kind == "times":
        k = story.number(2, 6)
        story.say(TIMES, p=p, q=q, k=k, things=things)
        text, result = math.multiply(value, k)
    else:
        story.say(HALF, p=p, q=q, things=things)
        text, result = math.divide(value, 2)
    story.work(f"{q} has {text} {things}.")
    return result


FAMILIES = {"comparing": tell}
