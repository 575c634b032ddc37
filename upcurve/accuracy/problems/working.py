"""Rates: pay by the hour, pages by the day, pieces by the machine, miles by the hour."""

from __future__ import annotations

from upcurve.accuracy.problems import arithmetic as math
from upcurve.accuracy.problems.story import Story, Wording

PAY = Wording(
    "pay",
    (
        "{p} earns ${n} an hour.",
        "{p} gets ${n} for each hour of work.",
        "{p} is paid ${n} per hour.",
        "For each hour at work, {p} earns ${n}.",
        "{p} works in a shop for ${n} an hour.",
    ),
    ("{p} is paid ${n} for each hour of work.", "For each hour in a shop, {p} gets ${n}."),
)
HOURS = Wording(
    "hours",
    (
        "{He} works {h} hours a day for {d} days.",
        "{He} works {h} hours each day, {d} days a week.",
        "On each of {d} days, {he} works {h} hours.",
        "For {d} days, {he} works {h} hours a day.",
    ),
    ("{He} works {d} days, {h} hours each day.", "On {d} days a week, {he} works {h} hours."),
)
BONUS = Wording(
    "bonus",
    (
        "{He} also gets a bonus of ${n}.",
        "In the end, {he} gets another ${n} as a bonus.",
        "{p} also receives ${n} from {his} aunt.",
        "{He} has ${n} already.",
    ),
    ("{p} also gets another ${n}.", "In the end, {he} also receives a bonus of ${n}."),
)
SPEND = Wording(
    "spend",
    (
        "{He} spends ${n} on food.",
        "Then {he} pays ${n} for a new coat.",
        "{p} gives ${n} to {his} brother.",
        "{He} pays ${n} for {his} bus ticket.",
    ),
    ("{p} pays ${n} for food.", "Then {he} spends ${n} on a new coat."),
)
ASK_MONEY = Wording(
    "money",
    (
        "How much money does {p} have?",
        "How many dollars does {p} have in the end?",
        "How much does {he} have now?",
        "How many dollars is that in total?",
    ),
    ("How many dollars does {he} have now?", "How much money does {he} have in the end?"),
)
RATE = Wording(
    "rate",
    (
        "{p} {verb} {n} {units} a day.",
        "Each day, {p} {verb} {n} {units}.",
        "{p} {verb} {n} {units} every day.",
        "Every day, {p} {verb} {n} {units}.",
    ),
    ("Every day {n} {units} is what {p} {verb}.", "{p} {verb} {n} {units} each day."),
)
LATER = Wording(
    "later",
    (
        "After {d} days, {he} {verb} {n} {units} a day for {e} more days.",
        "{He} does so for {d} days. For the next {e} days, {he} {verb} {n} {units} a day.",
        "That goes on for {d} days, and then for {e} days {he} {verb} {n} {units} each day.",
    ),
    (
        "{He} does so for {d} days, and then for {e} more days {he} {verb} {n} {units} a day.",
        "After {d} days, {he} {verb} {n} {units} each day for the next {e} days.",
    ),
)
ASK_UNITS = Wording(
    "units",
    (
        "How many {units} is that in total?",
        "What is the total number of {units}?",
        "How many {units} is that altogether?",
        "How many {units} does {he} reach in all?",
    ),
    ("What is the number of {units} in total?", "How many {units} is that in all?"),
)
ASK_FOR = Wording(
    "fordays",
    (
        "How many {units} is that in {d} days?",
        "What is the number of {units} in {d} days?",
        "How many {units} is that after {d} days?",
    ),
    ("In {d} days, how many {units} is that?", "What is the number of {units} after {d} days?"),
)
GOAL = Wording(
    "goal",
    (
        "{His} goal is {g} {units}.",
        "{He} wants to reach {g} {units}.",
        "There are {g} {units} to do in all.",
    ),
    ("{He} wants to do {g} {units} in all.", "{p}'s goal is to reach {g} {units}."),
)
DONE = Wording(
    "done",
    (
        "{He} has done {m} {units} already.",
        "{m} {units} are done already.",
        "So far, {he} has done {m} {units}.",
    ),
    ("So far, {m} {units} are done.", "{p} has already done {m} {units}."),
)
ASK_DAYS = Wording(
    "days",
    (
        "How many days does {he} need?",
        "How many days does the rest take?",
        "After how many more days does {p} reach the goal?",
    ),
    ("How many more days does {p} need?", "How many days does {he} need for the rest?"),
)
VERBS = (
    ("reads", "pages"),
    ("walks", "miles"),
    ("writes", "pages"),
    ("plants", "trees"),
    ("drives", "miles"),
    ("paints", "doors"),
    ("solves", "puzzles"),
    ("bakes", "cakes"),
    ("repairs", "bikes"),
)


def earn(story: Story) -> int:
    """Pay by the hour over days, perhaps a bonus and something spent."""
    (p,) = story.people(1)
    fields = {"p": p, "he": p.he, "He": p.He, "his": p.his}
    n, h, d = story.number(5, story.choice([12, 20, 48])), story.number(2, 9), story.number(2, 7)
    story.say(PAY, n=n, **fields)
    story.say(HOURS, h=h, d=d, **fields)
    text, hours = math.multiply(h, d)
    story.work(f"{p} works {text} hours.")
    text, money = math.multiply(n, hours)
    story.work(f"{p} earns {text} dollars.")
    if story.random.random() < 0.4:
        n = story.number(5, story.choice([60, 250]))
        story.say(BONUS, n=n, **fields)
        text, money = math.add(money, n)
        story.work(f"With that, {p} has {text} dollars.")
    if story.random.random() < 0.5:
        n = story.number(2, min(money - 1, 250))
        story.say(SPEND, n=n, **fields)
        text, money = math.subtract(money, n)
        story.work(f"That leaves {text} dollars.")
    story.say(ASK_MONEY, **fields)
    return money


def rate(story: Story) -> int:
    """A daily rate, then another one; how much in all."""
    (p,) = story.people(1)
    verb, units = story.choice(VERBS)
    fields = {"p": p, "he": p.he, "He": p.He, "verb": verb, "units": units}
    n, d = story.number(2, story.choice([12, 30, 60])), story.number(2, 9)
    story.say(RATE, n=n, **fields)
    if story.random.random() < 0.4:
        story.say(ASK_FOR, d=d, **fields)
        text, result = math.multiply(n, d)
        story.work(f"In {d} days, that is {text} {units}.")
        return result
    m, e = story.number(2, story.choice([12, 30, 60])), story.number(2, 9)
    story.say(LATER, d=d, n=m, e=e, **fields)
    story.say(ASK_UNITS, **fields)
    text, first = math.multiply(n, d)
    story.work(f"In the first {d} days, that is {text} {units}.")
    text, second = math.multiply(m, e)
    story.work(f"In the next {e} days, that is {text} {units}.")
    text, result = math.add(first, second)
    story.work(f"Together that is {text} {units}.")
    return result


def goal(story: Story) -> int:
    """How many days until a goal, perhaps with some done already."""
    (p,) = story.people(1)
    verb, units = story.choice(VERBS)
    fields = {
        "p": p,
        "he": p.he,
        "He": p.He,
        "His": p.his.capitalize(),
        "verb": verb,
        "units": units,
    }
    n, d = story.number(2, 9), story.number(2, story.choice([10, 20, 60]))
    done = story.choice([0, story.number(2, 20), story.number(2, 200)])
    goal = n * d + done
    sentences = [(GOAL, {"g": goal}), (RATE, {"n": n})]
    story.random.shuffle(sentences)
    for wording, numbers in sentences:
        story.say(wording, **numbers, **fields)
    if done:
        story.say(DONE, m=done, **fields)
        story.work(f"There are {math.subtract(goal, done)[0]} {units} left.")
    story.say(ASK_DAYS, **fields)
    text, result = math.divide(n * d, n)
    story.work(f"That takes {text} days.")
    return result


FAMILIES = {"earning": earn, "rates": rate, "goals": goal}
