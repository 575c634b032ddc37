"""The move between two configurations, split over the switches that they differ in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from upcurve.frontier.cost import usd_per_million_tokens
from upcurve.frontier.shapley import (
    Configuration,
    Design,
    Game,
    Order,
    from_ends,
    needed,
    over_orders,
    shapley,
)
from upcurve.frontier.uncertainty import CONFIDENCE, MINIMUM_ROUNDS

MOST_ROUNDS = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over rounds and how well they agree."""

    mean: float
    half_width: float | None
    """Of the 95 % Student-t interval of the mean; None for fewer than three rounds."""
    deviation: float | None
    """Standard deviation of a single round; None for one round."""
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Return the estimate of one value a round.

        Assumes rounds that are independent and normal with one variance.
        """
        count = len(values)
        deviation = float(np.std(values, ddof=1)) if count > 1 else None
        width = None
        if deviation is not None and count >= MINIMUM_ROUNDS:
            width = _quantile(count) * deviation / count**0.5
        return cls(float(np.mean(values)), width, deviation, count)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval (low, high)."""
        if self.half_width is None:
            return None
        return self.mean - self.half_width, self.mean + self.half_width

    def rounds_for(self, precision: float) -> int | None:
        """Return how many rounds in all give half widths of at most `precision` at this spread.

        None for fewer than two rounds (no spread is known), or for more than 10,000.
        """
        if self.deviation is None:
            return None
        low, high = MINIMUM_ROUNDS, MOST_ROUNDS
        while low < high:
            middle = (low + high) // 2
            enough = _quantile(middle) * self.deviation / middle**0.5 <= precision
            low, high = (low, middle) if enough else (middle + 1, high)
        return low if low < MOST_ROUNDS else None


def _quantile(count: int) -> float:
    return float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))


@dataclass(frozen=True, slots=True)
class Share:
    """What one switch does, or, under no switch's name, what several do only together."""

    switch: str
    log: Estimate
    """Share of the logarithm of the ratio full / baseline: exp(mean) is a factor."""
    usd: Estimate | None
    """Share of the change of $/M tokens; None without prices."""
    added_alone: Estimate | None
    """Log ratio of this switch alone over the baseline."""
    taken_away: Estimate | None
    """Log ratio of the full configuration over the full one without this switch."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A round that gives no shares, and the first reason."""

    round: int
    configuration: Configuration
    reason: str


@dataclass(frozen=True, slots=True)
class Attribution:
    """The move at one target interactivity, split over the switches."""

    interactivity: float
    design: Design
    switches: tuple[str, ...]
    shares: tuple[Share, ...]
    """One for each switch; empty where no round gives them."""
    interaction: Share | None
    """What is left of the move in the design `one`: what three or more switches do together."""
    move: Estimate | None
    """Log ratio full / baseline, over the rounds of the shares."""
    usd_move: Estimate | None
    baseline: Estimate | None
    """Log of tok/s/GPU with all switches off."""
    full: Estimate | None
    """Log of tok/s/GPU with all switches on."""
    usd: tuple[float, float] | None
    """Mean $/M tokens of the baseline and of the full configuration."""
    rounds: tuple[int, ...]
    """The rounds that shares rest on."""
    lost: tuple[Lost, ...]
    ends: int
    """Readings that lie in the first or last interval of a frontier, of `readings`."""
    readings: int

    @property
    def bars(self) -> tuple[Share, ...]:
        """All that sums to the move."""
        return (*self.shares, self.interaction) if self.interaction else self.shares

    def precise(self, precision: float) -> bool:
        """Whether every share's half width (log ratio) is known and at most `precision`."""
        widths = [bar.log.half_width for bar in self.bars]
        return bool(widths) and all(w is not None and w <= precision for w in widths)

    def more_rounds(self, precision: float) -> int | None:
        """Return how many rounds more would do at the present spread; None where unknown."""
        if not self.shares:
            return None
        needed = [bar.log.rounds_for(precision) for bar in self.bars]
        known = [each for each in needed if each is not None]
        return max(0, max(known) - len(self.rounds)) if len(known) == len(needed) else None


@dataclass(frozen=True, slots=True)
class Value:
    """Throughput per GPU of one configuration in one round, or why there is none."""

    tput_per_gpu: float | None
    reason: str = ""
    end: bool = False
    """Whether it lies in the first or last interval of its frontier."""


def attribute(
    values: Mapping[int, Mapping[Configuration, Value]],
    switches: Sequence[str],
    *,
    interactivity: float,
    design: Design,
    orders: Callable[[int], Sequence[Order]] | None = None,
    prices: Mapping[Configuration, float] | None = None,
) -> Attribution:
    """Split the move from all switches off to all on, round by round, then over rounds.

    Each round gives its own shares, so what all configurations of a round have in common cancels.
    Shares in log ratio sum to the log of the ratio, shares in $/M tokens to the change of cost,
    in every round and so in the mean, to rounding.

    Args:
        values: for each round, what each configuration that the design asks for gave; one that is
            absent was not measured.
        switches: n >= 1 names.
        interactivity: the target that values were read at, in tok/s/user.
        design: "full" takes Shapley values over all 2^n configurations, "shapley" the mean
            over `orders(round)`, "one" the mean of both ends and an interaction.
        orders: for "shapley": the orders of a round.
        prices: USD per GPU-hour by configuration; without one there are no shares of cost.
    """
    full, baseline = frozenset(switches), Configuration()
    chosen: dict[int, Sequence[Order]] = {}
    lost: list[Lost] = []
    for index in sorted(values):
        chosen[index] = orders(index) if orders else ()
        missing = _first_missing(values[index], needed(switches, design, chosen[index]))
        if missing is not None:
            lost.append(Lost(index, *missing))
    whole = [index for index in sorted(values) if index not in {each.round for each in lost}]

    def games(transform: Callable[[Configuration, float], float]) -> dict[int, Game]:
        return {
            index: {
                configuration: transform(configuration, value.tput_per_gpu)
                for configuration, value in values[index].items()
                if value.tput_per_gpu is not None
            }
            for index in values
        }

    logs = games(lambda _, tput: math.log(tput))
    costs = games(lambda on, tput: usd_per_million_tokens(prices[on], tput)) if prices else None
    log_shares = [_split(logs[r], switches, design, chosen[r]) for r in whole]
    usd_shares = [_split(costs[r], switches, design, chosen[r]) for r in whole] if costs else []

    def bar(position: int, switch: str) -> Share:
        alone = [(Configuration(), Configuration({switch}))] if switch else []
        last = [(full - {switch}, full)] if switch else []
        return Share(
            switch=switch,
            log=Estimate.of([each[position] for each in log_shares]),
            usd=Estimate.of([each[position] for each in usd_shares]) if usd_shares else None,
            added_alone=_differences(logs, alone),
            taken_away=_differences(logs, last),
        )

    def total(of: Mapping[int, Game] | None) -> Estimate | None:
        return Estimate.of([of[r][full] - of[r][baseline] for r in whole]) if of and whole else None

    def level(of: Mapping[int, Game], configuration: Configuration) -> Estimate | None:
        found = [game[configuration] for game in of.values() if configuration in game]
        paired = [of[r][configuration] for r in whole] or found
        return Estimate.of(paired) if paired else None

    usd = [level(costs, each) for each in (baseline, full)] if costs else []
    readings = [value for r in values for value in values[r].values() if value.tput_per_gpu]
    return Attribution(
        interactivity=interactivity,
        design=design,
        switches=tuple(switches),
        shares=tuple(bar(i, switch) for i, switch in enumerate(switches)) if whole else (),
        interaction=bar(len(switches), "") if whole and design == "one" else None,
        move=total(logs),
        usd_move=total(costs),
        baseline=level(logs, baseline),
        full=level(logs, full),
        usd=(usd[0].mean, usd[1].mean) if usd and usd[0] and usd[1] else None,
        rounds=tuple(whole),
        lost=tuple(lost),
        ends=sum(value.end for value in readings),
        readings=len(readings),
    )


def _split(
    game: Game, switches: Sequence[str], design: Design, orders: Sequence[Order]
) -> list[float]:
    if design == "full":
        return shapley(game, switches)
    if design == "shapley":
        return over_orders(game, switches, orders)
    return from_ends(game, switches)


def _first_missing(
    values: Mapping[Configuration, Value], wanted: Sequence[Configuration]
) -> tuple[Configuration, str] | None:
    for configuration in wanted:
        value = values.get(configuration, Value(None, "not measured"))
        if value.tput_per_gpu is None:
            return configuration, value.reason
    return None


def _differences(
    games: Mapping[int, Game], pairs: Sequence[tuple[Configuration, Configuration]]
) -> Estimate | None:
    """Return the mean difference of a pair over the rounds that have both."""
    found = [
        game[after] - game[before]
        for before, after in pairs
        for game in games.values()
        if before in game and after in game
    ]
    return Estimate.of(found) if found else None
