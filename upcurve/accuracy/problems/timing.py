"""Minutes and hours, ages, and trips."""

from __future__ import annotations

import itertools

from upcurve.accuracy.problems import arithmetic as math
from upcurve.accuracy.problems import words
from upcurve.accuracy.problems.story import Story, Wording

SPENT = Wording(
    "spent",
    (
        "On {day}, {p} {does} for {h} hours and {m} minutes.",
        "{p} {does} for {h} hours and {m} minutes on {day}.",
        "First, {p} {does} for {h} hours and {m} minutes.",
    ),
    (
        "{p} {does} {h} hours and {m} minutes on {day}.",
        "For {h} hours and {m} minutes, {p} {does} on {day}.",
    ),
)
THEN = Wording(
    "then",
    (
        "Then {he} {does} for {m} minutes.",
        "After that, {he} {does} for another {m} minutes.",
        "Later, {he} {does} for {m} minutes more.",
        "{He} also {does} for {m} minutes.",
    ),
    ("After that, {p} also {does} for {m} minutes.", "Later, {p} {does} for another {m} minutes."),
)
DAILY = Wording(
    "daily",
    (
        "{p} {does} for {m} minutes on each of {d} days.",
        "Every day for {d} days, {p} {does} for {m} minutes.",
        "For {d} days, {p} {does} {m} minutes a day.",
    ),
    ("{p} {does} for {m} minutes a day for {d} days.", "On {d} days, {p} {does} for {m} minutes."),
)
ASK_MINUTES = Wording(
    "minutes",
    (
        "How many minutes is that in total?",
        "How many minutes is that altogether?",
        "What is the total time in minutes?",
        "Find the total number of minutes.",
    ),
    ("What is the total number of minutes?", "In total, how many minutes is that?"),
)
AGE = Wording(
    "age",
    (
        "{p} is {n} years old.",
        "{p} is {n}.",
        "Today {p} is {n} years old.",
        "The age of {p} is {n}.",
    ),
    ("{p} is {n} years old today.", "Today the age of {p} is {n}."),
)
OLDER = Wording(
    "older",
    (
        "{q} is {n} years older than {p}.",
        "{p} is {n} years younger than {q}.",
        "{q} is older than {p} by {n} years.",
    ),
    ("{q} is {n} years older than {p} is.", "The age of {q} is {n} years more than that of {p}."),
)
YOUNGER = Wording(
    "younger",
    (
        "{q} is {n} years younger than {p}.",
        "{p} is {n} years older than {q}.",
        "{q} is younger than {p} by {n} years.",
    ),
    ("{q} is {n} years younger than {p} is.", "The age of {q} is {n} years less than that of {p}."),
)
TWICE = Wording(
    "twice",
    (
        "{q} is {k} times as old as {p}.",
        "{q}'s age is {k} times that of {p}.",
        "The age of {q} is {k} times the age of {p}.",
    ),
    ("{q} is {k} times the age of {p}.", "{q}'s age is {k} times the age of {p}."),
)
ASK_AGE = Wording(
    "askage",
    (
        "How old is {q}?",
        "What is the age of {q}?",
        "How many years old is {q}?",
    ),
    ("What is {q}'s age?", "Find the age of {q}."),
)
ASK_FUTURE = Wording(
    "future",
    (
        "How old will {q} be in {y} years?",
        "In {y} years, how old will {q} be?",
        "What will be the age of {q} in {y} years?",
    ),
    ("What will {q}'s age be in {y} years?", "How many years old will {q} be in {y} years?"),
)
ASK_SUM = Wording(
    "sum",
    (
        "What is the sum of their ages?",
        "How old are they together?",
        "Find the sum of all their ages.",
    ),
    ("What is the sum of all ages?", "Find the sum of their ages."),
)
TRIP = Wording(
    "trip",
    (
        "A {vehicle} travels at {n} miles per hour for {h} hours.",
        "For {h} hours, a {vehicle} goes {n} miles per hour.",
        "{p} drives a {vehicle} for {h} hours at {n} miles per hour.",
        "A {vehicle} goes at a speed of {n} miles per hour for {h} hours.",
    ),
    (
        "For {h} hours, {p} drives a {vehicle} at a speed of {n} miles per hour.",
        "A {vehicle} travels {h} hours at {n} miles per hour.",
    ),
)
LEG = Wording(
    "leg",
    (
        "Then it goes at {n} miles per hour for {h} hours.",
        "After a break, it travels {h} more hours at {n} miles per hour.",
        "For the next {h} hours, the speed is {n} miles per hour.",
    ),
    (
        "Then it travels at {n} miles per hour for {h} more hours.",
        "After a break, the speed is {n} miles per hour for {h} hours.",
    ),
)
ASK_MILES = Wording(
    "miles",
    (
        "How many miles is the trip?",
        "How far does it go in total?",
        "What is the total distance in miles?",
        "How many miles is that altogether?",
    ),
    ("What is the total distance of the trip in miles?", "How many miles does it go in total?"),
)
ASK_LEFT = Wording(
    "milesleft",
    (
        "The whole way is {w} miles. How many miles are left?",
        "The trip is {w} miles long. How far is it from the end?",
        "How many of the {w} miles to the city are left?",
    ),
    (
        "The trip is {w} miles. How many miles are left?",
        "The whole way is {w} miles long. How far is it from the end?",
    ),
)
ACTIVITIES = ("reads", "runs", "swims", "draws", "dances", "studies", "plays the piano", "cooks")
VEHICLES = ("car", "train", "bus", "truck", "van")


def spend(story: Story) -> int:
    """Times in hours and minutes; the total in minutes."""
    (p,) = story.people(1)
    first, second, third = story.random.sample(ACTIVITIES, 3)
    fields = {"p": p, "he": p.he, "He": p.He}
    if story.random.random() < 0.5:
        h, m = story.number(2, 6), story.choice(range(5, 60, 5))
        story.say(SPENT, does=first, h=h, m=m, day=story.choice(words.DAYS), **fields)
        text, minutes = math.multiply(h, 60)
        story.work(f"{h} hours are {text} minutes.")
        text, total = math.add(minutes, m)
        story.work(f"That makes {text} minutes.")
    else:
        m, d = story.choice(range(5, 100, 5)), story.number(2, 9)
        story.say(DAILY, does=first, m=m, d=d, **fields)
        text, total = math.multiply(m, d)
        story.work(f"In {d} days, that is {text} minutes.")
    for does in (second, third)[: story.choice([1, 1, 2])]:
        m = story.number(2, 99)
        story.say(THEN, does=does, m=m, **fields)
        text, total = math.add(total, m)
        story.work(f"That makes {text} minutes.")
    story.say(ASK_MINUTES)
    return total


def age(story: Story) -> int:
    """A chain of ages; one of them now or later, or their sum."""
    people = story.people(story.choice([2, 2, 3]))
    ages = [story.number(4, 40)]
    story.say(AGE, p=people[0], n=ages[0])
    for p, q in itertools.pairwise(people):
        kinds = ["older"] + ["younger"] * (ages[-1] > 4) + ["twice"] * (ages[-1] <= 25)
        kind = story.choice(kinds)
        n, k = story.number(2, 30), story.number(2, 4)
        if kind == "older":
            story.say(OLDER, p=p, q=q, n=n)
            text, value = math.add(ages[-1], n)
        elif kind == "younger":
            n = story.number(1, ages[-1] - 2)
            story.say(YOUNGER, p=p, q=q, n=n)
            text, value = math.subtract(ages[-1], n)
        else:
            story.say(TWICE, p=p, q=q, k=k)
            text, value = math.multiply(ages[-1], k)
        story.work(f"{q} is {text} years old.")
        ages.append(value)
    ask = story.choice(["age", "future", "sum"])
    q = people[-1]
    if ask == "age":
        story.say(ASK_AGE, q=q)
        return ages[-1]
    if ask == "future":
        y = story.number(2, 30)
        story.say(ASK_FUTURE, q=q, y=y)
        text, result = math.add(ages[-1], y)
        story.work(f"In {y} years, {q} will be {text} years old.")
        return result
    story.say(ASK_SUM)
    text, result = math.add(*ages)
    story.work(f"Together they are {text} years old.")
    return result


def trip(story: Story) -> int:
    """One or two legs at a speed; the distance, or what is left of it."""
    (p,) = story.people(1)
    vehicle = story.choice(VEHICLES)
    legs = story.choice([1, 2, 2])
    distances = []
    for place in range(legs):
        n, h = story.number(10, story.choice([40, 80, 120])), story.number(2, 9)
        story.say(LEG if place else TRIP, n=n, h=h, p=p, vehicle=vehicle)
        text, distance = math.multiply(n, h)
        story.work(f"In {h} hours, it goes {text} miles.")
        distances.append(distance)
    total = distances[0]
    if legs == 2:
        text, total = math.add(*distances)
        story.work(f"Together that is {text} miles.")
    if story.random.random() < 0.4:
        w = total + story.number(5, 300)
        story.say(ASK_LEFT, w=w)
        text, result = math.subtract(w, total)
        story.work(f"There are {text} miles left.")
        return result
    story.say(ASK_MILES)
    return total


FAMILIES = {"minutes": spend, "ages": age, "trips": trip}
