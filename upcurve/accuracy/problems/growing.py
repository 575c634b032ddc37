"""Fields, gardens and farms: areas, edges, harvests, weights and averages."""

from __future__ import annotations

from upcurve.accuracy.problems import arithmetic as math
from upcurve.accuracy.problems import words
from upcurve.accuracy.problems.story import Story, Wording

FIELD = Wording(
    "field",
    (
        "A {field} is {a} meters long and {b} meters wide.",
        "{p} has a {field} that is {a} meters long and {b} meters wide.",
        "The length of a {field} is {a} meters and its width is {b} meters.",
        "{p}'s {field} has a length of {a} meters and a width of {b} meters.",
    ),
    (
        "{p}'s {field} is {a} meters long and its width is {b} meters.",
        "A {field} has a length of {a} meters and is {b} meters wide.",
    ),
)
ASK_EDGE = Wording(
    "edge",
    (
        "How many meters of fence go around it?",
        "What is the distance around the {field} in meters?",
        "How long is a fence around the {field}?",
    ),
    ("How many meters is it around the {field}?", "How long is the fence around it in meters?"),
)
ASK_AREA = Wording(
    "area",
    (
        "What is its area in square meters?",
        "How many square meters is the {field}?",
        "Find the area of the {field} in square meters.",
    ),
    ("What is the area of the {field} in square meters?", "How many square meters is its area?"),
)
ASK_FENCE = Wording(
    "fence",
    (
        "A fence around it costs ${n} per meter. How much does the fence cost?",
        "How many dollars does a fence around it cost at ${n} per meter?",
        "Each meter of fence costs ${n}. What is the cost of a fence around the {field}?",
    ),
    (
        "What does a fence around the {field} cost at ${n} per meter?",
        "A fence costs ${n} per meter. How many dollars does a fence around it cost?",
    ),
)
YIELD = Wording(
    "yield",
    (
        "A farm has {k} rows of {plants} with {n} {plants} in each row.",
        "{p} plants {k} rows of {n} {plants}.",
        "There are {n} {plants} in each of the {k} rows of a farm.",
        "On a farm, {k} rows hold {n} {plants} each.",
    ),
    (
        "On a farm, there are {k} rows with {n} {plants} in each.",
        "{p} plants {n} {plants} in each of {k} rows.",
    ),
)
EACH = Wording(
    "gives",
    (
        "Each of them gives {m} kilograms of fruit.",
        "Every one gives {m} kilograms of fruit.",
        "From each one, {p} gets {m} kilograms of fruit.",
    ),
    ("Every one of them gives {m} kilograms of fruit.", "{p} gets {m} kilograms from each one."),
)
ASK_FRUIT = Wording(
    "fruit",
    (
        "How many kilograms of fruit is that?",
        "How many kilograms of fruit does the farm give?",
        "What is the weight of the fruit in kilograms?",
    ),
    ("How many kilograms of fruit are there?", "What is the weight of all the fruit in kilograms?"),
)
ASK_SOLD = Wording(
    "sold",
    (
        "{p} sells {s} kilograms. How many kilograms of fruit are left?",
        "After {s} kilograms are sold, how many kilograms are left?",
        "How many kilograms of fruit are left when {s} kilograms are sold?",
    ),
    (
        "{s} kilograms of fruit are sold. How many kilograms are left?",
        "When {p} sells {s} kilograms of fruit, how many are left?",
    ),
)
HARVEST = Wording(
    "harvest",
    (
        "{p} picks {a} {things} on {x}, {b} on {y} and {c} on {z}.",
        "On {x}, {p} sold {a} {things}. On {y} it was {b}, and on {z} it was {c}.",
        "{p} counts {a} {things} on {x}, {b} {things} on {y} and {c} {things} on {z}.",
    ),
    (
        "On {x} {p} counts {a} {things}, on {y} {b} and on {z} {c}.",
        "{p} sold {a} {things} on {x}, {b} {things} on {y} and {c} on {z}.",
    ),
)
ASK_MEAN = Wording(
    "mean",
    (
        "What is the average per day?",
        "How many {things} is that per day on average?",
        "Find the average number of {things} per day.",
    ),
    ("What is the average number of {things} per day?", "On average, how many is that per day?"),
)
ASK_ALL = Wording(
    "all",
    (
        "How many {things} is that in total?",
        "What is the total for the three days?",
        "How many {things} is that altogether?",
    ),
    (
        "In total, how many {things} is that in three days?",
        "How many {things} is that for the three days?",
    ),
)
FIELDS = ("garden", "field", "yard", "park", "pool", "playground")
PLANTS = ("trees", "bushes", "plants", "vines")


def field(story: Story) -> int:
    """The edge, the area or the cost of a fence of a rectangle."""
    (p,) = story.people(1)
    a, b = story.number(3, story.choice([12, 40, 99])), story.number(2, 9)
    a, b = max(a, b), min(a, b)
    name = story.choice(FIELDS)
    story.say(FIELD, p=p, a=a, b=b, field=name)
    ask = story.choice(["edge", "area", "fence"])
    if ask == "area":
        story.say(ASK_AREA, field=name)
        text, result = math.multiply(a, b)
        story.work(f"The area is {text} square meters.")
        return result
    text, half = math.add(a, b)
    story.work(f"Length and width are {text} meters.")
    text, result = math.multiply(half, 2)
    story.work(f"Around it there are {text} meters.")
    if ask == "edge":
        story.say(ASK_EDGE, field=name)
        return result
    n = story.number(2, 12)
    story.say(ASK_FENCE, n=n, field=name)
    text, result = math.multiply(result, n)
    story.work(f"The fence costs {text} dollars.")
    return result


def farm(story: Story) -> int:
    """Rows of plants, fruit of each, perhaps some sold."""
    (p,) = story.people(1)
    k, n, m = story.number(2, 9), story.number(2, story.choice([12, 30])), story.number(2, 12)
    plants = story.choice(PLANTS)
    story.say(YIELD, p=p, k=k, n=n, plants=plants)
    story.say(EACH, p=p, m=m)
    text, count = math.multiply(k, n)
    story.work(f"There are {text} {plants}.")
    text, fruit = math.multiply(count, m)
    story.work(f"They give {text} kilograms of fruit.")
    if story.random.random() < 0.5:
        s = story.number(2, fruit - 1)
        story.say(ASK_SOLD, p=p, s=s)
        text, fruit = math.subtract(fruit, s)
        story.work(f"That leaves {text} kilograms.")
        return fruit
    story.say(ASK_FRUIT)
    return fruit


def harvest(story: Story) -> int:
    """Three days; the total or the average."""
    (p,) = story.people(1)
    (things,) = story.things(1)
    x, y, z = story.random.sample(words.DAYS, 3)
    a, b = story.amount(3, 300), story.amount(3, 300)
    ask = story.choice(["mean", "all"])
    c = story.amount(3, 300)
    if ask == "mean":
        c += -(a + b + c) % 3
    story.say(HARVEST, p=p, a=a, b=b, c=c, x=x, y=y, z=z, things=things)
    text, total = math.add(a, b, c)
    story.work(f"The total is {text} {things}.")
    if ask == "all":
        story.say(ASK_ALL, things=things)
        return total
    story.say(ASK_MEAN, things=things)
    text, result = math.divide(total, 3)
    story.work(f"The average is {text} {things}.")
    return result


FAMILIES = {"fields": field, "farms": farm, "harvests": harvest}
