"""What tokens cost: dated prices of a GPU-hour over throughput, and energy."""

from __future__ import annotations

import csv
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from upcurve.errors import InputError
from upcurve.frontier.point import Place, Point

SECONDS_PER_HOUR = 3600


def usd_per_million_tokens(usd_per_gpu_hour: float, tput_per_gpu: float) -> float:
    """Return price / (tput_per_gpu x 3600 / 1e6), in USD per million tokens, input and output.

    Interpolate throughput and divide last: cost is not to be interpolated itself.

    Args:
        usd_per_gpu_hour: price of one GPU for one hour.
        tput_per_gpu: (input + output) tokens per second per GPU, positive.
    """
    return usd_per_gpu_hour / (tput_per_gpu * SECONDS_PER_HOUR / 1e6)


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one GPU-hour and where it comes from."""

    hardware: str
    usd_per_gpu_hour: float
    tier: str | None = None
    """Kind of provider; None for a price that the caller gave."""
    valid_from: date | None = None
    basis: str = "as given"
    """What a price without a tier is made of, in words."""

    def describe(self) -> str:
        """Return the assumption in words: what, how much, whose price, from when."""
        source = f"{self.tier}, valid from {self.valid_from}" if self.tier else self.basis
        return f"{self.hardware} ${self.usd_per_gpu_hour:g} per GPU-hour ({source})"


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by hardware, tier and the date from which they hold."""

    prices: tuple[Price, ...]

    @classmethod
    def from_csv(cls, lines: Iterable[str]) -> PriceTable:
        """Parse the lines of a CSV with columns hardware, tier, valid_from, usd_per_gpu_hour.

        Raises:
            InputError: a column is missing, or a row has no date or positive price.
        """
        prices: list[Price] = []
        for number, row in enumerate(csv.DictReader(lines), start=2):
            try:
                price = Price(
                    hardware=row["hardware"],
                    usd_per_gpu_hour=float(row["usd_per_gpu_hour"]),
                    tier=row["tier"],
                    valid_from=date.fromisoformat(row["valid_from"]),
                )
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    "prices",
                    f"line {number} has no readable price ({error!r})",
                    "give hardware, tier, valid_from (YYYY-MM-DD), usd_per_gpu_hour",
                ) from error
            if not 0 < price.usd_per_gpu_hour < math.inf:
                raise InputError(
                    "prices",
                    f"usd_per_gpu_hour of line {number} is {price.usd_per_gpu_hour}",
                    "give a positive price",
                )
            prices.append(price)
        return cls(tuple(prices))

    @property
    def hardware(self) -> list[str]:
        """The hardware that has a price, in alphabetical order."""
        return sorted({price.hardware for price in self.prices})

    def lookup(self, hardware: str, tier: str, on: date) -> Price:
        """Return the latest price that holds on a date.

        Raises:
            InputError: the table does not know the hardware or the tier, or no price that early;
                the error lists what it knows.
        """
        of_hardware = [price for price in self.prices if price.hardware == hardware]
        if not of_hardware:
            raise InputError(
                "hardware",
                f"no price for {hardware!r}",
                f"known are {', '.join(self.hardware)}",
            )
        of_tier = [price for price in of_hardware if price.tier == tier]
        if not of_tier:
            tiers = sorted({price.tier for price in of_hardware if price.tier})
            raise InputError(
                "tier", f"no {tier!r} price for {hardware}", f"known are {', '.join(tiers)}"
            )
        dated = [(price.valid_from, price) for price in of_tier if price.valid_from]
        holding = [entry for entry in dated if entry[0] <= on]
        if not holding:
            earliest = min(start for start, _ in dated)
            raise InputError(
                "on",
                f"no {tier} price for {hardware} holds on {on}",
                f"the earliest is of {earliest}",
            )
        return max(holding, key=lambda entry: entry[0])[1]


def joules_per_token(
    frontier: Sequence[Point],
    watts_per_gpu: Mapping[Place, float],
    interactivity: float,
    tput_per_gpu: float,
) -> float | None:
    """Return the GPUs' energy for one token, input or output, at an interactivity.

    Power per GPU is read from the straight line between the two frontier points around the
    interactivity and divided by the throughput there: power changes little from point to point,
    throughput much, so their quotient is not to be interpolated itself.

    Args:
        frontier: points by ascending interactivity.
        watts_per_gpu: mean power of one GPU under that load, in W.
        interactivity: where to read, in tok/s/user.
        tput_per_gpu: (input + output) tokens per second per GPU there.

    Returns:
        Joules; None outside the frontier, or where a point beside it has no recorded power.
    """
    upper = bisect_left([point.interactivity for point in frontier], interactivity)
    if upper == len(frontier) or (upper == 0 and frontier[0].interactivity != interactivity):
        return None
    exact = frontier[upper].interactivity == interactivity
    beside = [frontier[upper]] if exact else list(frontier[upper - 1 : upper + 1])
    watts = [watts_per_gpu.get(each.place) for each in beside]
    known = [each for each in watts if each is not None]
    if len(known) < len(watts):
        return None
    power = np.interp(interactivity, [each.interactivity for each in beside], known)
    return float(power) / tput_per_gpu


def input_output_cost(
    usd_per_million_tokens: float, isl: int, osl: int, output_weight: float
) -> tuple[float, float]:
    """Split a cost per million tokens into USD per million input and per million output tokens.

    What is bought is time of a GPU, and requests share it: a split is a convention. Here an output
    token is charged `output_weight` times an input token, and both together cost what they cost.

    Args:
        usd_per_million_tokens: cost of a million tokens, input and output.
        isl: input tokens of a request.
        osl: output tokens of a request.
        output_weight: positive.
    """
    of_input = usd_per_million_tokens * (isl + osl) / (isl + output_weight * osl)
    return of_input, output_weight * of_input
