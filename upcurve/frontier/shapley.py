"""Shares of what several switches do together: Shapley values, exact or over some orders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

Configuration = frozenset[str]
"""The switches that are on."""
Order = tuple[str, ...]
"""All switches, in the order in which they are turned on."""
Design = Literal["full", "shapley", "one"]
"""How shares are made: over all orders, over some, or from both ends alone."""

MOST_EXACT = 4
"""Switches up to which every configuration is measured where nobody says otherwise: 16."""
MOST_FULL = 10
"""Switches up to which it can be asked for: 1,024 configurations a round."""

Game = Mapping[Configuration, float]
"""A value for each configuration: log throughput, or cost."""


def needed(
    switches: Sequence[str], design: Design, orders: Sequence[Order] = ()
) -> list[Configuration]:
    """Return the configurations that the shares of one round rest on, by number of switches."""
    everything = set(switches)
    if design == "full":
        sets = {frozenset(c) for k in range(len(switches) + 1) for c in combinations(switches, k)}
    elif design == "shapley":
        sets = {frozenset(order[:k]) for order in orders for k in range(len(order) + 1)}
    else:
        sets = set(ends(switches))
    # Ties in the order of the switches, so that no hash decides.
    rank = {switch: position for position, switch in enumerate(switches)}
    assert all(each <= everything for each in sets)
    return sorted(sets, key=lambda on: (len(on), sorted(rank[switch] for switch in on)))


def ends(switches: Sequence[str]) -> list[Configuration]:
    """Return all off, each switch alone, each one missing, all on: each configuration once."""
    full = frozenset(switches)
    alone = [frozenset({switch}) for switch in switches]
    without = [full - {switch} for switch in switches]
    return list(dict.fromkeys([Configuration(), *alone, *without, full]))


def shapley(game: Game, switches: Sequence[str]) -> list[float]:
    """Return each switch's Shapley value: its mean contribution over all orders.

    L. S. Shapley, "A value for n-person games", Contributions to the Theory of Games II (1953).

    Args:
        game: a value for every subset of the switches.
        switches: n names, n small: 2^n values are read n times.
    """
    count = len(switches)
    shares = []
    for switch in switches:
        others = [each for each in switches if each != switch]
        share = 0.0
        for size in range(count):
            weight = 1 / (count * math.comb(count - 1, size))
            for before in combinations(others, size):
                share += weight * (game[frozenset((*before, switch))] - game[frozenset(before)])
        shares.append(share)
    return shares


def over_orders(game: Game, switches: Sequence[str], orders: Sequence[Order]) -> list[float]:
    """Return each switch's mean contribution over some orders; they sum to the move.

    An order and its reverse together give the Shapley value where interactions are of pairs.
    """
    sums = dict.fromkeys(switches, 0.0)
    for order in orders:
        for position, switch in enumerate(order):
            sums[switch] += (
                game[frozenset(order[: position + 1])] - game[frozenset(order[:position])]
            )
    return [sums[switch] / len(orders) for switch in switches]


def from_ends(game: Game, switches: Sequence[str]) -> list[float]:
    """Return the mean of each switch's first and last contribution, and what is left of the move.

    The mean is the Shapley value where interactions are of pairs, so what is left is due to
    three switches or more.
    """
    full = frozenset(switches)
    shares = [
        (game[frozenset({each})] - game[frozenset()] + game[full] - game[full - {each}]) / 2
        for each in switches
    ]
    return [*shares, game[full] - game[frozenset()] - math.fsum(shares)]
