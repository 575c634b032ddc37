"""Somebody has things; some come, some go."""

from __future__ import annotations

from upcurve.accuracy.problems import arithmetic as math
from upcurve.accuracy.problems import words
from upcurve.accuracy.problems.story import Person, Story, Wording

START = Wording(
    "start",
    (
        "{p} has {n} {things}.",
        "{p} had {n} {things}.",
        "{p} starts with {n} {things}.",
        "There are {n} {things} in {p}'s room.",
        "{p} collects {things} and has {n} of them.",
        "{p} owns {n} {things}.",
        "In the morning, {p} had {n} {things}.",
        "{p} keeps {n} {things} in a box.",
    ),
    (
        "In the box of {p} there are {n} {things}.",
        "{p} started the morning with {n} {things}.",
        "{p} had {n} of the {things}.",
    ),
)
GAIN = Wording(
    "gain",
    (
        "{p} buys {n} more.",
        "Then {he} finds {n} more {things}.",
        "A friend gives {p} {n} more {things}.",
        "{p} gets {n} {things} from {his} aunt.",
        "Later, {p} was given {n} more.",
        "On {day}, {he} got {n} new {things}.",
        "{His} mother gives {p} another {n} {things}.",
        "After that, {p} received {n} {things} as a gift.",
    ),
    (
        "On {day}, {he} finds another {n}.",
        "Then {p} received {n} new {things} from a friend.",
        "Later, {he} buys {n} more {things}.",
    ),
)
LOSE = Wording(
    "lose",
    (
        "{p} gives {n} {things} to {q}.",
        "Then {he} loses {n} of them.",
        "{p} sells {n} {things}.",
        "On {day}, {he} gave away {n} {things}.",
        "Later, {n} {things} were lost.",
        "{q} takes {n} of the {things}.",
        "After that, {p} sold {n} of them to {q}.",
        "{He} then gives {n} to a friend.",
    ),
    (
        "On {day}, {he} sells {n} of the {things} to {q}.",
        "Then {p} gave {n} of them to a friend.",
        "Later, {p} loses {n} {things}.",
    ),
)
PACKS = Wording(
    "packs",
    (
        "{p} buys {k} {boxes} with {n} {things} in each.",
        "Then {he} gets {k} {boxes} of {things}, each with {n} {things}.",
        "{q} gives {p} {k} {boxes} of {n} {things} each.",
        "On {day}, {he} buys {k} {boxes} of {things}. Each {box} holds {n}.",
        "Later, {p} finds {k} {boxes}, and there are {n} {things} in every {box}.",
        "After that, {he} bought {k} more {boxes} of {n} {things}.",
    ),
    (
        "On {day}, {q} gives {p} {k} {boxes} with {n} {things} in every {box}.",
        "Then {p} bought {k} {boxes}. Each holds {n} {things}.",
    ),
)
TIMES = Wording(
    "times",
    (
        "Then {his} collection grows to {k} times as many.",
        "By {day}, {p} has {k} times as many {things} as before.",
        "A month later, {he} has {k} times that number of {things}.",
        "After a year, the number of {things} is {k} times as large.",
    ),
    (
        "By {day}, the number of {things} grows to {k} times as many.",
        "A year later, {p} has {k} times as many as before.",
    ),
)
SHARE = Wording(
    "share",
    (
        "Then {he} gives {one} of the {things} to {q}.",
        "{p} gives {q} {one} of {his} {things}.",
        "On {day}, {he} sells {one} of them.",
        "Later, {one} of the {things} are lost.",
        "{q} gets {one} of them.",
        "After that, {p} loses {one} of {his} {things}.",
    ),
    (
        "On {day}, {q} gets {one} of the {things}.",
        "Later, {p} sells {one} of {his} {things} to {q}.",
    ),
)
ASK = Wording(
    "ask",
    (
        "How many {things} does {p} have now?",
        "How many {things} are left?",
        "How many {things} does {p} have in the end?",
        "What is the number of {things} {p} has now?",
        "How many does {he} have now?",
        "Find how many {things} {p} has at the end.",
    ),
    (
        "How many {things} does {he} have at the end?",
        "What is the number of {things} in the end?",
    ),
)
PARTS = {"half": (1, 2), "a third": (1, 3), "a quarter": (1, 4), "a fifth": (1, 5)}
PARTS |= {"two thirds": (2, 3), "three quarters": (3, 4), "10%": (1, 10), "20%": (1, 5)}
PARTS |= {"25%": (1, 4), "50%": (1, 2), "30%": (3, 10)}


def tell(story: Story) -> int:
    """A running number with one to four events."""
    p, q = story.people(2)
    (things,) = story.things(1)
    events = story.choice([1, 2, 2, 3, 3, 4])
    now = story.amount(5)
    story.say(START, p=p, n=now, things=things)
    for _ in range(events):
        parts = {name: part for name, part in PARTS.items() if now % part[1] == 0}
        kinds = ["gain", "lose", "gain", "lose", "packs"]
        kinds += ["share"] * 2 if parts and now >= 8 else []
        kinds += ["times"] if now <= 400 else []
        now = _event(story, story.choice(kinds), now, p, q, things)
    story.say(ASK, p=p, he=p.he, things=things)
    return now


def _event(story: Story, kind: str, now: int, p: Person, q: Person, things: str) -> int:
    box, boxes = story.choice(words.BOXES)
    fields = {
        "p": p,
        "q": q,
        "he": p.he,
        "He": p.He,
        "his": p.his,
        "His": p.his.capitalize(),
        "things": things,
    }
    fields |= {"day": story.choice(words.DAYS), "box": box, "boxes": boxes}
    if kind == "gain":
        n = story.amount()
        story.say(GAIN, n=n, **fields)
        text, now = math.add(now, n)
    elif kind == "lose":
        n = story.number(1, max(1, now - 1))
        story.say(LOSE, n=n, **fields)
        text, now = math.subtract(now, n)
    elif kind == "packs":
        k, n = story.number(2, 9), story.number(2, story.choice([12, 50]))
        story.say(PACKS, k=k, n=n, **fields)
        text, more = math.multiply(k, n)
        story.work(f"The {boxes} hold {text} {things}.")
        text, now = math.add(now, more)
    elif kind == "times":
        k = story.number(2, 9)
        story.say(TIMES, k=k, **fields)
        text, now = math.multiply(now, k)
    else:
        parts = {name: part for name, part in PARTS.items() if now % part[1] == 0}
        one = story.choice(list(parts))
        story.say(SHARE, one=one, **fields)
        text, gone = math.fraction(*parts[one], now)
        story.work(f"{one.capitalize()} of {now} is {text}.")
        text, now = math.subtract(now, gone)
    story.work(f"Now {p} has {text} {things}.")
    return now


FAMILIES = {"collecting": tell}
