"""Worked arithmetic: each function returns what is written and the number that comes out.

What one look at a table of small numbers does not give is written in parts, as on paper: products
by the digits of the factors, quotients by the largest round part of the dividend.
"""

from __future__ import annotations

Worked = tuple[str, int]


def add(*terms: int) -> Worked:
    """Write a sum; three terms and more are added from the left, one at a time."""
    text, left = " + ".join(map(str, terms)), list(terms)
    while len(left) > 2:
        left = [left[0] + left[1], *left[2:]]
        text += " = " + " + ".join(map(str, left))
    total = sum(left)
    return f"{text} = {total}", total


class UnfitError(ValueError):
    """A story of whole things has come to less than nothing."""


def subtract(a: int, b: int) -> Worked:
    """Write a difference.

    Raises:
        UnfitError: b is larger than a.
    """
    if b > a:
        raise UnfitError(f"{a} - {b}")
    return f"{a} - {b} = {a - b}", a - b


def multiply(a: int, b: int) -> Worked:
    """Write a product: directly where one digit of each counts, else digit by digit."""
    text = f"{a} * {b}"
    if _single(a) and _single(b):
        return f"{text} = {a * b}", a * b
    if _single(b):
        parts = [part * b for part in _parts(a)]
    elif _single(a):
        parts = [part * a for part in _parts(b)]
    else:
        pairs = [(one, other) for other in _parts(b) for one in _parts(a)]
        text += " = " + " + ".join(f"{one} * {other}" for one, other in pairs)
        parts = [one * other for one, other in pairs]
    return f"{text} = {add(*parts)[0]}", a * b


def divide(a: int, b: int) -> Worked:
    """Write an exact quotient: directly up to 10, else by round parts of the dividend."""
    quotient, rest = divmod(a, b)
    if rest:
        raise ValueError(f"{a} is no multiple of {b}")
    parts = _parts(quotient)
    if len(parts) <= 1 or quotient <= 10:
        return f"{a} / {b} = {quotient}", quotient
    split = " + ".join(f"{part * b} / {b}" for part in parts)
    return f"{a} / {b} = {split} = {add(*parts)[0]}", quotient


def fraction(numerator: int, denominator: int, whole: int) -> Worked:
    """Write a fraction of a whole number that the denominator divides."""
    text, part = divide(whole, denominator)
    if numerator == 1:
        return text, part
    more, result = multiply(part, numerator)
    return f"{text}, and {more}", result


PERCENT = {5: (1, 20), 10: (1, 10), 20: (1, 5), 25: (1, 4), 30: (3, 10), 40: (2, 5)}
PERCENT |= {50: (1, 2), 60: (3, 5), 75: (3, 4), 80: (4, 5), 90: (9, 10)}
"""Percentages that stories use, as fractions."""


def percent(share: int, whole: int) -> Worked:
    """Write a percentage of a whole number as a fraction of it."""
    return fraction(*PERCENT[share], whole)


def _parts(number: int) -> list[int]:
    """Return 365 as 300, 60, 5."""
    digits = str(number)
    parts = [int(d) * 10 ** (len(digits) - 1 - i) for i, d in enumerate(digits)]
    return [part for part in parts if part]


def _single(number: int) -> bool:
    return len(_parts(number)) <= 1
