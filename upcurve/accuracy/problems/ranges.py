"""The held-out number ranges: no training question has a number in them."""

from __future__ import annotations

import re

HELD_OUT_RANGES = ((32, 39), (66, 74), (130, 179), (410, 529), (1300, 1699))
"""Both ends included. Results of steps may fall in them in training; given numbers may not."""

_NUMBER = re.compile(r"\d+")


def is_held_out(number: int) -> bool:
    """Say whether a number lies in a held-out range."""
    return any(low <= number <= high for low, high in HELD_OUT_RANGES)


def has_held_out(text: str) -> bool:
    """Say whether any number written in a text lies in a held-out range."""
    return any(is_held_out(int(number)) for number in _NUMBER.findall(text))
