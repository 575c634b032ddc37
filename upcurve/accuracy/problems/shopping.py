"""Prices, bills, change and discounts."""

from __future__ import annotations

from upcurve.accuracy.problems import arithmetic as math
from upcurve.accuracy.problems import words
from upcurve.accuracy.problems.story import Story, Wording

PRICE = Wording(
    "price",
    (
        "A {good} costs ${n}.",
        "Each {good} costs ${n}.",
        "The price of a {good} is ${n}.",
        "One {good} is sold for ${n}.",
        "In the shop, a {good} costs ${n}.",
        "A shop sells {goods} for ${n} each.",
    ),
    (
        "In the shop, the price of each {good} is ${n}.",
        "The shop sells one {good} for ${n}.",
    ),
)
BUY = Wording(
    "buy",
    (
        "{p} buys {k} {goods}.",
        "{p} takes {k} of the {goods}.",
        "{p} wants {k} {goods}.",
        "{p} pays for {k} {goods}.",
        "{k} {goods} are bought by {p}.",
        "{p} puts {k} {goods} in the basket.",
    ),
    (
        "In the basket, there are {k} {goods} for {p}.",
        "{p} buys {k} of the {goods}.",
    ),
)
BUY_AT = Wording(
    "buyat",
    (
        "{p} buys {k} {goods} for ${n} each.",
        "{p} also buys {k} {goods} at ${n} each.",
        "{p} gets {k} {goods}, and each costs ${n}.",
        "Then {p} pays ${n} for each of {k} {goods}.",
        "{p} puts {k} {goods} in the basket, at a price of ${n} each.",
    ),
    (
        "{p} pays for {k} {goods}, and the price of each is ${n}.",
        "Then {p} gets {k} {goods} at ${n} each.",
    ),
)
OFF = Wording(
    "off",
    (
        "There is a discount of {r}%.",
        "The shop takes {r}% off the bill.",
        "Today everything is {r}% off.",
        "{p} has a card that gives a discount of {r}%.",
        "The bill is reduced by {r}%.",
    ),
    (
        "Today the shop gives a discount of {r}%.",
        "{p} has a card that takes {r}% off the bill.",
    ),
)
COUPON = Wording(
    "coupon",
    (
        "{p} has a coupon for ${n} off.",
        "A coupon takes ${n} off the bill.",
        "The shop takes ${n} off the price.",
        "{p} gets ${n} off with a coupon.",
    ),
    (
        "The bill is reduced by ${n} with a coupon.",
        "With a card {p} gets ${n} off the bill.",
    ),
)
SHIP = Wording(
    "shipping",
    (
        "Shipping costs ${n}.",
        "There is a fee of ${n} for shipping.",
        "{p} also pays ${n} for the bus.",
        "A gift bag costs another ${n}.",
    ),
    (
        "{p} also pays a fee of ${n}.",
        "The fee for shipping is ${n}.",
    ),
)
ASK_COST = Wording(
    "cost",
    (
        "How much does {p} pay in total?",
        "How many dollars does {p} spend?",
        "What is the total cost?",
        "How much money does {p} need to pay?",
        "How much does {p} spend altogether?",
    ),
    (
        "How many dollars does {p} pay altogether?",
        "What is the total cost for {p}?",
    ),
)
ASK_CHANGE = Wording(
    "change",
    (
        "{p} pays with ${n}. How much change does {he} get?",
        "If {he} pays with ${n}, how many dollars of change does {p} get back?",
        "{p} had ${n}. How much money is left?",
        "{He} started with ${n}. How much does {p} have left?",
        "How much of {his} ${n} does {p} have left?",
    ),
    (
        "{p} started with ${n}. How many dollars are left?",
        "If {p} had ${n}, how much money does {he} have left?",
    ),
)
ASK_SPLIT = Wording(
    "split",
    (
        "{k} friends share the cost equally. How much does each pay?",
        "The bill is split equally among {k} people. How many dollars does each person pay?",
        "{p} and some friends, {k} people in all, share the bill equally. How much does each pay?",
        "If {k} people split the cost equally, how much does each one pay?",
    ),
    (
        "If {k} friends share the bill equally, how many dollars does each pay?",
        "The cost is split equally among {k} friends. How much does each person pay?",
    ),
)


def tell(story: Story) -> int:
    """One or two goods, perhaps a discount or a fee, then a cost, change or shares."""
    (p,) = story.people(1)
    kinds = story.random.sample(words.GOODS, 2)
    costs = []
    pair = story.choice([False, True])
    for place, (good, goods) in enumerate(kinds[: 1 + pair]):
        n, k = story.number(2, story.choice([12, 20, 60, 120])), story.number(2, 9)
        if place or pair or story.random.random() < 0.3:
            story.say(BUY_AT, p=p, k=k, n=n, goods=goods)
        else:
            story.say(PRICE, n=n, good=good, goods=goods)
            story.say(BUY, p=p, k=k, goods=goods)
        text, cost = math.multiply(n, k)
        story.work(f"The {goods} cost {text} dollars.")
        costs.append(cost)
    cost = costs[0]
    if pair:
        text, cost = math.add(*costs)
        story.work(f"Together this costs {text} dollars.")
    cost = _extras(story, cost, p.name)
    return _ask(story, cost, p.name, p.he, p.his)


def _extras(story: Story, cost: int, p: str) -> int:
    rates = [rate for rate, (_, whole) in math.PERCENT.items() if cost % whole == 0 and rate <= 50]
    extra = story.choice(["none", "none", "off", "coupon", "ship"])
    if extra == "off" and rates:
        rate = story.choice(rates)
        story.say(OFF, p=p, r=rate)
        text, off = math.percent(rate, cost)
        story.work(f"The discount is {rate}% of {cost}: {text} dollars.")
        text, cost = math.subtract(cost, off)
        story.work(f"So the bill is {text} dollars.")
    elif extra == "coupon" and cost > 4:
        n = story.number(2, min(cost - 1, 50))
        story.say(COUPON, p=p, n=n)
        text, cost = math.subtract(cost, n)
        story.work(f"So the bill is {text} dollars.")
    elif extra == "ship":
        n = story.number(2, 25)
        story.say(SHIP, p=p, n=n)
        text, cost = math.add(cost, n)
        story.work(f"So the bill is {text} dollars.")
    return cost


def _ask(story: Story, cost: int, p: str, he: str, his: str) -> int:
    sharers = [k for k in range(2, 10) if cost % k == 0]
    ask = story.choice(["cost", "change", "split" if sharers else "cost"])
    if ask == "change":
        n = story.choice([cost + story.number(1, 100), (cost // 100 + 1) * 100])
        story.say(ASK_CHANGE, p=p, he=he, He=he.capitalize(), his=his, n=n)
        text, result = math.subtract(n, cost)
        story.work(f"{p} has {text} dollars left.")
        return result
    if ask == "split":
        k = story.choice(sharers)
        story.say(ASK_SPLIT, p=p, k=k)
        text, result = math.divide(cost, k)
        story.work(f"Each pays {text} dollars.")
        return result
    story.say(ASK_COST, p=p)
    return cost


FAMILIES = {"shopping": tell}
