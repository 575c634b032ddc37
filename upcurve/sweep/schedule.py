"""Which configurations of switches each round of an ablation measures, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from upcurve.errors import InputError
from upcurve.frontier.shapley import (
    MOST_EXACT,
    MOST_FULL,
    Configuration,
    Design,
    Order,
    ends,
    needed,
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which configurations each round measures, and in which order: a function of the seed."""

    switches: tuple[str, ...]
    design: Design
    seed: int = 0
    pairs: int = 1
    """For the design "shapley": pairs of an order and its reverse, drawn anew in each round."""

    @classmethod
    def choose(
        cls, switches: Sequence[str], design: Design | None, *, seed: int = 0, pairs: int = 1
    ) -> Schedule:
        """Return the schedule of a design; without one, all 2^n configurations where n <= 4.

        Raises:
            InputError: all configurations are asked for and there are more than 1,024.
        """
        count = len(switches)
        if design == "full" and count > MOST_FULL:
            problem = f"{count} switches have {2**count:,} configurations"
            raise InputError("--design", problem, "give --design shapley or one")
        return cls(
            tuple(switches), design or ("full" if count <= MOST_EXACT else "shapley"), seed, pairs
        )

    def orders(self, index: int) -> list[Order]:
        """Return the orders that a round's shares are the mean over; none but for "shapley"."""
        if self.design != "shapley":
            return []
        chance = np.random.default_rng([self.seed, index, 0])
        drawn: list[Order] = []
        for _ in range(self.pairs):
            places = chance.permutation(len(self.switches))
            order = tuple(self.switches[place] for place in places)
            drawn += [order, tuple(reversed(order))]
        return drawn

    def configurations(self, index: int) -> list[Configuration]:
        """Return what a round measures, in the round's own random order.

        What each switch does alone and last is measured in every design.
        """
        wanted = needed(self.switches, self.design, self.orders(index))
        wanted = list(dict.fromkeys([*ends(self.switches), *wanted]))
        turns = np.random.default_rng([self.seed, index, 1]).permutation(len(wanted))
        return [wanted[turn] for turn in turns]
