"""Things in groups: packed, shared, in rows, in parts of a whole."""

from __future__ import annotations

from upcurve.accuracy.problems import arithmetic as math
from upcurve.accuracy.problems import words
from upcurve.accuracy.problems.story import Story, Wording

MADE = Wording(
    "made",
    (
        "{p} makes {n} {things}.",
        "{p} has {n} {things} to share.",
        "There are {n} {things} in a shop.",
        "{p} brings {n} {things} to a party.",
        "{p} buys {n} {things} for {his} friends.",
    ),
    ("In a shop {p} buys {n} {things}.", "{p} makes {n} {things} for a party."),
)
ROWS = Wording(
    "rows",
    (
        "There are {k} rows of {things} with {n} {things} in each row.",
        "{p} sets out {k} rows of {n} {things}.",
        "{p} fills {k} {boxes} with {n} {things} each.",
        "{p} has {k} {boxes}, and each {box} holds {n} {things}.",
        "A shop has {k} {boxes} of {things}. Every {box} has {n} {things}.",
    ),
    (
        "{p} has {k} rows of {things}, and every row has {n} {things}.",
        "There are {k} {boxes} with {n} {things} in each {box}.",
    ),
)
BAD = Wording(
    "bad",
    (
        "{n} of them are broken and thrown away.",
        "{p} keeps {n} of them.",
        "{n} {things} are lost on the way.",
        "{p} puts {n} of the {things} aside.",
    ),
    ("{n} of the {things} are thrown away.", "On the way, {n} of them are lost."),
)
MORE = Wording(
    "moreto",
    (
        "{q} brings {n} more {things}.",
        "{q} adds {n} {things}.",
        "Then {n} more {things} are added.",
        "Another {n} {things} come from {q}.",
    ),
    ("Then {q} brings another {n} {things}.", "{n} more {things} are added by {q}."),
)
ASK_EACH = Wording(
    "each",
    (
        "The rest is shared equally among {k} children. How many {things} does each child get?",
        "{k} friends share them equally. How many {things} does each friend get?",
        "They are packed equally into {k} {boxes}. How many {things} are in each {box}?",
        "If {k} children share them equally, how many {things} does each get?",
        "{p} puts them into {k} {boxes}, the same number in each. How many are in one {box}?",
    ),
    (
        "If they are packed equally into {k} {boxes}, how many are in each {box}?",
        "{k} children share them equally. How many {things} does one child get?",
    ),
)
ASK_BOXES = Wording(
    "boxes",
    (
        "{k} {things} go into each {box}. How many {boxes} are needed?",
        "They are packed into {boxes} of {k}. How many {boxes} are there?",
        "If every {box} holds {k} {things}, how many {boxes} does {p} need?",
        "Each child gets {k} {things}. How many children get some?",
        "{p} packs {k} {things} into each {box}. How many {boxes} does {he} fill?",
    ),
    (
        "If each {box} holds {k}, how many {boxes} are needed?",
        "They are packed with {k} {things} in each {box}. How many {boxes} does {p} fill?",
    ),
)
WHOLE = Wording(
    "whole",
    (
        "There are {n} {members} in a {place}.",
        "A {place} has {n} {members}.",
        "{n} {members} belong to a {place}.",
        "On {day}, {n} {members} came to the {place}.",
    ),
    ("On {day}, there are {n} {members} in a {place}.", "{n} {members} are in the {place}."),
)
SHARE = Wording(
    "shareof",
    (
        "{One} of the {members} are girls and the others are boys.",
        "{One} of them play football, and the rest play tennis.",
        "{One} of the {members} walk, and the rest take the bus.",
        "{One} of them wear a hat. The rest do not.",
    ),
    (
        "{One} of the {members} play tennis, and the others play football.",
        "{One} of them take the bus, and the rest walk.",
    ),
)
ASK_REST = Wording(
    "rest",
    (
        "How many {members} are in the other part?",
        "How many {members} make up the rest?",
        "What is the number of {members} in the rest?",
    ),
    ("How many {members} are in the rest?", "What number of {members} make up the other part?"),
)
OF_REST = Wording(
    "ofrest",
    (
        "Of the rest, {one} are new.",
        "{One} of the rest are new this year.",
        "Among the others, {one} are new.",
    ),
    ("Among the rest, {one} are new this year.", "{One} of the others are new."),
)
ASK_NEW = Wording(
    "new",
    (
        "How many {members} are new?",
        "What is the number of new {members}?",
        "Find how many new {members} there are.",
    ),
    ("How many new {members} are there?", "Find the number of new {members}."),
)
PARTS = {"half": (1, 2), "a third": (1, 3), "a quarter": (1, 4), "a fifth": (1, 5)}
PARTS |= {"two thirds": (2, 3), "three quarters": (3, 4), "two fifths": (2, 5), "10%": (1, 10)}
PARTS |= {"20%": (1, 5), "25%": (1, 4), "30%": (3, 10), "40%": (2, 5), "60%": (3, 5)}


def share(story: Story) -> int:
    """A number of things, perhaps fewer or more, shared or packed evenly."""
    p, q = story.people(2)
    (things,) = story.things(1)
    box, boxes = story.choice(words.BOXES)
    fields = {
        "p": p,
        "q": q,
        "he": p.he,
        "his": p.his,
        "things": things,
        "box": box,
        "boxes": boxes,
    }
    each, k = story.number(2, story.choice([12, 30, 99])), story.number(2, 9)
    total = each * k
    change = story.choice(["none", "less", "more"])
    extra = story.number(1, story.choice([9, 40, 99]))
    before = total + extra if change == "less" else total - extra if change == "more" else total
    if before < 2:
        change, before = "none", total
    rows = [r for r in range(2, 10) if before % r == 0 and before // r > 1]
    if rows and story.random.random() < 0.5:
        r = story.choice(rows)
        story.say(ROWS, k=r, n=before // r, **fields)
        story.work(f"There are {math.multiply(r, before // r)[0]} {things}.")
    else:
        story.say(MADE, n=before, **fields)
    if change == "less":
        story.say(BAD, n=extra, **fields)
        story.work(f"That leaves {math.subtract(before, extra)[0]} {things}.")
    elif change == "more":
        story.say(MORE, n=extra, **fields)
        story.work(f"That makes {math.add(before, extra)[0]} {things}.")
    if story.random.random() < 0.5:
        story.say(ASK_EACH, k=k, **fields)
        text, result = math.divide(total, k)
        story.work(f"Each gets {text} {things}.")
    else:
        story.say(ASK_BOXES, k=k, **fields)
        text, result = math.divide(total, k)
        story.work(f"They fill {text}.")
    return result


def part(story: Story) -> int:
    """A fraction or percentage of a group, the rest, and a part of the rest."""
    place, members = story.choice(words.GROUPS)
    one, (top, bottom) = story.choice(list(PARTS.items()))
    n = bottom * story.number(2, story.choice([10, 40, 100]))
    story.say(WHOLE, n=n, place=place, members=members, day=story.choice(words.DAYS))
    story.say(SHARE, One=one.capitalize(), members=members)
    text, some = math.fraction(top, bottom, n)
    story.work(f"{one.capitalize()} of {n} is {text}.")
    text, rest = math.subtract(n, some)
    story.work(f"The rest is {text} {members}.")
    parts = {name: each for name, each in PARTS.items() if rest % each[1] == 0}
    if parts and story.random.random() < 0.6:
        one, each = story.choice(list(parts.items()))
        story.say(OF_REST, one=one, One=one.capitalize())
        text, result = math.fraction(*each, rest)
        story.work(f"{one.capitalize()} of {rest} is {text}.")
        story.say(ASK_NEW, members=members)
        return result
    story.say(ASK_REST, members=members)
    return rest


FAMILIES = {"sharing": share, "parts": part}
