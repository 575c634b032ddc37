"""The highest load that keeps given limits, found with few points."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from upcurve.errors import InputError
from upcurve.load.statistics import MINIMUM_SAMPLES

TOLERANCE = 0.05
"""The answer is within this share of the lowest load that breaks a limit."""

FAILED_SHARE = 0.01
"""Share of failed requests beyond which a load counts as too high, whatever its latencies."""

_FORM = re.compile(
    r"(?P<metric>ttft|tpot|itl|e2e|interactivity)(?:_(?P<statistic>p50|p90|p99|p99\.9|mean|p10|p1))?"
    r"\s*(?P<sign>[<>])=?\s*(?P<value>[0-9.]+)\s*(?P<unit>ms|s)?"
)
_MEND = "give e.g. 'ttft_p99<1s,tpot<25ms' or 'interactivity>40'"


@dataclass(frozen=True, slots=True)
class Limit:
    """One condition on a point: `ttft_p99<1s`; without a statistic the median."""

    metric: str
    """A key of the figures that holds statistics: ttft_ms, tpot_ms, ..., interactivity_per_user."""
    statistic: str
    bound: float
    """In ms; of interactivity in tokens per second."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one condition.

        Raises:
            InputError: it is none.
        """
        found = _FORM.fullmatch(text.strip().lower())
        if found is None:
            raise InputError("search", f"{text!r} is no limit", _MEND)
        metric, statistic, sign, unit = found.group("metric", "statistic", "sign", "unit")
        statistic = statistic or "p50"
        pace = metric == "interactivity"
        low = statistic in ("p10", "p1")
        try:
            bound = float(found["value"])
        except ValueError:
            bound = 0.0
        if bound <= 0 or pace != (sign == ">") or (pace and unit is not None):
            raise InputError("search", f"{text!r} bounds no load", _MEND)
        if statistic not in ("p50", "mean") and pace != low:
            problem = f"{text!r}: slow users are in high percentiles of times, low ones of pace"
            raise InputError("search", problem, _MEND)
        key = "interactivity_per_user" if pace else f"{metric}_ms"
        return cls(key, statistic, bound * (1000 if unit == "s" else 1))

    @property
    def samples(self) -> int:
        """Requests that a point needs for the statistic to be given."""
        name = {"p10": "p90", "p1": "p99"}.get(self.statistic, self.statistic)
        return MINIMUM_SAMPLES.get(name, 1)

    def strain(self, figures: Mapping[str, Any]) -> float | None:
        """Return how far a point uses the limit up: 1 at the bound, more beyond; None: unknown."""
        value: float | None = figures[self.metric][self.statistic]
        if value is None:
            return None
        return self.bound / value if self.metric.startswith("interactivity") else value / self.bound


def parse_limits(text: str) -> tuple[Limit, ...]:
    """Read conditions that are separated by commas.

    Raises:
        InputError: one is none.
    """
    return tuple(Limit.parse(each) for each in text.split(","))


def strain(limits: Sequence[Limit], figures: Mapping[str, Any]) -> float:
    """Return the greatest strain of a point's limits; infinite where the point is no answer.

    Raises:
        InputError: a statistic is missing although requests succeeded.
    """
    if figures["failed"] > FAILED_SHARE * figures["requests"]:
        return math.inf
    strains = []
    for each in limits:
        found = each.strain(figures)
        if found is None:
            name = f"{each.metric} {each.statistic}"
            problem = f"{figures['requests']} requests give no {name}"
            raise InputError("requests", problem, f"give at least {each.samples}")
        strains.append(found)
    return max(strains)


@dataclass(frozen=True, slots=True)
class Search:
    """Which loads to try between two bounds; strain is taken to grow with the load.

    First the lowest, then twice the load each time until a limit breaks; then inside the bracket
    of the highest load that keeps the limits and the lowest that breaks them, where a straight
    line through their strains, on logarithmic axes, crosses 1, held off both ends by a tenth of
    the bracket. It ends when the bracket is within 5 %, or one stream.
    """

    lowest: float
    highest: float
    whole: bool
    """Whether loads are whole numbers (streams) or not (requests per second)."""

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            InputError: they are no bounds.
        """
        if not 0 < self.lowest < self.highest:
            problem = f"{self.lowest:g} to {self.highest:g} is no range of loads"
            raise InputError("search", problem, "give two values: the lowest and the highest load")

    def next(self, tried: Mapping[float, float]) -> float | None:
        """Return the load to try next, None where the answer is known.

        Args:
            tried: load -> strain of what was measured so far.
        """
        if not tried:
            return self.lowest
        kept, broken = self._bracket(tried)
        if kept is None:
            return None if broken is not None and broken <= self.lowest else self.lowest
        if broken is None:
            return None if kept >= self.highest else min(self.highest, self._rounded(kept * 2))
        if broken - kept <= 1 if self.whole else broken <= kept * (1 + TOLERANCE):
            return None
        if broken <= kept * (1 + TOLERANCE):
            return None
        guess = self._rounded(_crossing(kept, tried[kept], broken, tried[broken]))
        if self.whole:
            guess = min(max(guess, kept + 1), broken - 1)
        return guess

    def answer(self, tried: Mapping[float, float]) -> float | None:
        """Return the highest load that keeps the limits, None where none does."""
        return self._bracket(tried)[0]

    def _bracket(self, tried: Mapping[float, float]) -> tuple[float | None, float | None]:
        broken = min((load for load, value in tried.items() if value > 1), default=None)
        # Noise may let a load pass above one that broke: the lower one decides.
        below = [
            load
            for load, value in tried.items()
            if value <= 1 and (broken is None or load < broken)
        ]
        return max(below, default=None), broken

    def _rounded(self, load: float) -> float:
        return round(load) if self.whole else load


def _crossing(kept: float, low: float, broken: float, high: float) -> float:
    width = math.log(broken / kept)
    place = 0.5
    if math.isfinite(high) and 0 < low < high:
        place = -math.log(low) / (math.log(high) - math.log(low))
    return kept * math.exp(width * min(0.9, max(0.1, place)))
