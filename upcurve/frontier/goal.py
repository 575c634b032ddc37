"""What a sweep that chooses its points is to find out: targets, precision, budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from upcurve.errors import InputError
from upcurve.frontier.cost import SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True)
class Target:
    """Where the frontier is to be known: one axis at one value, the other axis is read there."""

    axis: Literal["interactivity", "tput_per_gpu"]
    value: float
    usd_per_million_tokens: float | None = None
    """The cost that a throughput target stands for."""

    @classmethod
    def of_cost(cls, usd_per_million_tokens: float, usd_per_gpu_hour: float) -> Target:
        """Return the throughput per GPU at which a million tokens cost so much."""
        needed = usd_per_gpu_hour / (usd_per_million_tokens * SECONDS_PER_HOUR / 1e6)
        return cls("tput_per_gpu", needed, usd_per_million_tokens)

    def describe(self) -> str:
        """Return the target in words."""
        if self.usd_per_million_tokens is not None:
            return f"${self.usd_per_million_tokens:g} per million tokens"
        return f"{self.value:g} tok/s/{'user' if self.axis == 'interactivity' else 'GPU'}"


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be known, how well, and within which bounds."""

    targets: tuple[Target, ...]
    precision: float
    """Relative error of the value at each target, 0.02 for 2 %."""
    highest: int
    """The highest concurrency that may be measured; the lowest is 1."""
    max_points: int
    """Measurements in all, repeats and failed ones included."""
    rounds: int = 1
    """How often a point may be measured, each time on a fresh engine."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: one of them cannot be used.
        """
        if not self.targets or not all(0 < each.value < math.inf for each in self.targets):
            raise InputError("targets", "not all positive and finite", "give e.g. 40")
        if not 0 < self.precision < 1:
            problem = f"{self.precision:g} is no share between 0 and 1"
            raise InputError("precision", problem, "give e.g. 0.02 for 2 %")
        for name in ("highest", "max_points", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(name, "it is below 1", "give a positive whole number")
