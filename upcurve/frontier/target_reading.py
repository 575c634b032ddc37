"""A series read at one target beside the baseline: throughput, ratio, cost, spread, doubts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from upcurve.frontier.bootstrap import MINIMUM_REPEATS, Draws
from upcurve.frontier.cost import usd_per_million_tokens
from upcurve.frontier.fit import Fit
from upcurve.frontier.flags import (
    Flag,
    bracket,
    end_segment,
    point_flags,
    reach_uncertain,
    regime_extension,
)
from upcurve.frontier.interpolation import RULES, Curve, Reading, Segment, Status
from upcurve.frontier.text import ratio_text
from upcurve.frontier.uncertainty import (
    Interval,
    NoiseFloor,
    RatioSpread,
    TargetDraws,
    inside_noise,
    noise_floor,
    ratio_spread,
)


@dataclass(frozen=True, slots=True)
class TargetReading:
    """One series at one target interactivity."""

    interactivity: float
    """The target, in tok/s/user."""
    tput_per_gpu: float | None
    """Tokens per second per GPU; None where the status is unreachable or below_range."""
    status: Status
    segment: Segment | None
    interval: Interval | None
    """95 % interval of `tput_per_gpu`, where three repeats or more surely reach the target."""
    usd_per_million_tokens: float | None
    ratio: float | None
    """Over the baseline; infinite where only the baseline is unreachable, None where undefined."""
    ratio_interval: Interval | None
    """95 % interval of `ratio`, where both series have repeats that surely reach."""
    round_ratios: RatioSpread | None
    """The ratio within each of two or more rounds that both series share, if all of them reach."""
    rule_ratios: tuple[float, float] | None
    """Lowest and highest ratio over all interpolation rules, where it rests on an end segment."""
    flags: tuple[Flag, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of this reading."""
        infinite = self.ratio is not None and math.isinf(self.ratio)
        return {
            "interactivity": self.interactivity,
            "tput_per_gpu": self.tput_per_gpu,
            "status": self.status,
            "segment": self.segment,
            "interval": list(self.interval) if self.interval else None,
            "usd_per_million_tokens": self.usd_per_million_tokens,
            "ratio": "inf" if infinite else self.ratio,
            "ratio_interval": list(self.ratio_interval) if self.ratio_interval else None,
            "round_ratios": self.round_ratios and asdict(self.round_ratios),
            "rule_ratios": list(self.rule_ratios) if self.rule_ratios else None,
            "flags": [flag.to_dict() for flag in self.flags],
        }


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One series of a comparison under way."""

    fit: Fit
    draws: Draws | None
    read: TargetDraws | None
    noise: NoiseFloor | None
    price: float | None

    @property
    def fully_repeated(self) -> bool:
        """Whether every frontier point has the repeats that an interval takes."""
        return all(len(group) >= MINIMUM_REPEATS for group in self.fit.measured)

    def run_noise(self, target: float, rule: str) -> float | None:
        """Return the variation of one run at a target: by earlier runs, or else by its repeats."""
        floor = self.noise or noise_floor(
            [(point.interactivity, point.tput_per_gpu) for point in group]
            for group in self.fit.measured
        )
        if floor is None:
            return None
        return floor.at_interactivity(self.fit.curves[rule].elasticity(target))


def read_target(side: Side, base: Side, place: int, target: float, rule: str) -> TargetReading:
    """Read a series at one target.

    Args:
        side: the series.
        base: the baseline; the same object where it is read itself.
        place: of the target among those that `read` was read at.
        target: interactivity, in tok/s/user.
        rule: a name of `upcurve.frontier.interpolation.RULES`.
    """
    fit = side.fit
    own, other = fit.curves[rule].at(target), base.fit.curves[rule].at(target)
    ratio = _ratio(own, other)
    has_ratio = ratio is not None and math.isfinite(ratio) and side is not base
    own_interval, ratio_interval = None, None
    if own.value is not None and side.read and _is_repeated(side, target, rule):
        own_interval = side.read.interval(place, own.value)
        if has_ratio and ratio and base.read and _is_repeated(base, target, rule):
            ratio_interval = side.read.ratio_interval(base.read, place, ratio)
    reading = TargetReading(
        interactivity=target,
        tput_per_gpu=own.value,
        status=own.status,
        segment=own.segment,
        interval=own_interval,
        usd_per_million_tokens=(
            usd_per_million_tokens(side.price, own.value)
            if side.price is not None and own.value is not None
            else None
        ),
        ratio=ratio,
        ratio_interval=ratio_interval,
        round_ratios=_round_ratios(fit, base.fit, target) if has_ratio else None,
        rule_ratios=(
            _rule_ratios(fit, base.fit, target)
            if has_ratio and "end" in (own.segment, other.segment)
            else None
        ),
        flags=(),
    )
    return replace(reading, flags=tuple(_flags(reading, side, base, rule)))


def _is_repeated(side: Side, target: float, rule: str) -> bool:
    """Whether all knots that shape the curve at a target have repeats enough."""
    left = int(np.searchsorted(side.fit.curves[rule].x, target, side="right")) - 1
    shaping = side.fit.measured[max(0, left - 1) : left + 3]
    return all(len(group) >= MINIMUM_REPEATS for group in shaping)


def _flags(reading: TargetReading, side: Side, base: Side, rule: str) -> Iterator[Flag]:
    target, curve = reading.interactivity, side.fit.curves[rule]
    if reading.tput_per_gpu is None:
        return
    if side is not base:
        other = base.fit.curves[rule]
        yield from regime_extension(base.fit.name, other, other.at(target), target)
    if reading.rule_ratios:
        low, high = map(ratio_text, reading.rule_ratios)
        yield end_segment((low, high))
    yield from point_flags(side.fit.measured[bracket(curve, target)])
    repeated = _is_repeated(side, target, rule)
    if repeated and reading.interval is None:
        yield reach_uncertain(target)
    held = reading.ratio_interval
    if held and held[0] <= 1 <= held[1]:
        yield Flag("inside_noise", "the interval of the ratio holds 1: no difference is shown")
    elif (
        side is not base
        and reading.ratio
        and not held
        and math.isfinite(reading.ratio)
        and inside_noise(reading.ratio, side.run_noise(target, rule), base.run_noise(target, rule))
    ):
        yield Flag("inside_noise", "two runs of the same thing differ as much: inside the noise")


def _ratio(own: Reading, base: Reading) -> float | None:
    if own.value is None:
        return None
    if base.value is None:
        return math.inf if base.status == "unreachable" else None
    return own.value / base.value


def _values(curves: Mapping[int, Curve], rounds: Iterable[int], x: float) -> list[float] | None:
    """Return the value at x in each of `rounds`, or None where one does not reach."""
    values = [curves[index].at(x).value for index in rounds]
    found = [value for value in values if value is not None]
    return found if len(found) == len(values) else None


def _round_ratios(fit: Fit, base: Fit, target: float) -> RatioSpread | None:
    shared = [index for index in fit.rounds if index in base.rounds]
    own, other = _values(fit.rounds, shared, target), _values(base.rounds, shared, target)
    return ratio_spread(own, other) if own and other and len(shared) > 1 else None


def _rule_ratios(fit: Fit, base: Fit, target: float) -> tuple[float, float] | None:
    ratios = [_ratio(fit.curves[name].at(target), base.curves[name].at(target)) for name in RULES]
    found = [ratio for ratio in ratios if ratio is not None]
    return min(found), max(found)
