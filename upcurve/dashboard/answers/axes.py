"""The axes that a series can be drawn on, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from upcurve.dashboard.contract.common import Axis
from upcurve.dashboard.contract.curves import ChartPoint
from upcurve.dashboard.contract.questions import XName, YName
from upcurve.frontier.cost import usd_per_million_tokens
from upcurve.frontier.interpolation import Floats
from upcurve.frontier.point import Place
from upcurve.records.compared import Pricing
from upcurve.records.published import specifications


def _axis(name: str, label: str, unit: str, *, better: bool) -> Axis:
    return Axis(name=name, label=label, unit=unit, higher_is_better=better)


X_AXES: dict[XName, Axis] = {
    "interactivity": _axis("interactivity", "Interactivity", "tok/s/user", better=True),
    "e2e": _axis("e2e", "End-to-end latency, median", "ms", better=False),
    "ttft": _axis("ttft", "Time to first token, median", "ms", better=False),
}
_TOTAL = "Throughput per GPU, input + output"
Y_AXES: dict[YName, Axis] = {
    "total": _axis("total", _TOTAL, "tok/s/GPU", better=True),
    "input": _axis("input", "Input throughput per GPU", "tok/s/GPU", better=True),
    "output": _axis("output", "Output throughput per GPU", "tok/s/GPU", better=True),
    "cost": _axis("cost", "Cost, input + output", "USD/M tokens", better=False),
    "per_mw": _axis("per_mw", "Throughput per megawatt, input + output", "tok/s/MW", better=True),
    "joules": _axis("joules", "GPU energy, input + output", "J/token", better=False),
}


@dataclass(frozen=True, slots=True)
class Vertical:
    """How y is made of throughput at an x."""

    of: Callable[[Floats, Floats], Floats]
    """(x, tok/s/GPU) -> y, shapes alike."""
    assumption: str | None = None


def vertical(
    y: YName,
    *,
    usd_per_gpu_hour: float | None,
    power: tuple[float, str] | None,
    watts: Callable[[], Mapping[Place, float]],
    frontier: Sequence[ChartPoint],
) -> Vertical | str:
    """Return how y is made of throughput, or why it cannot be.

    Args:
        y: the axis.
        usd_per_gpu_hour: price of the hardware; None where there is none.
        power: provisioned kW per GPU, and where that is from.
        watts: gives the recorded power per GPU by operating point, in W; asked where needed.
        frontier: by ascending x.
    """
    if y == "cost":
        if usd_per_gpu_hour is None:
            return "its hardware has no price; give one"
        price = usd_per_gpu_hour
        return Vertical(lambda _, tput: usd_per_million_tokens(price, 1) / tput)
    if y == "per_mw":
        if power is None:
            return "the power of its hardware is not known; give kw"
        kw, source = power
        return Vertical(lambda _, tput: tput * 1000 / kw, source)
    if y == "joules":
        known = watts()
        keys = [
            Place(each.tp, each.ep, each.dp, each.gpus, each.prefill_gpus or 0, each.concurrency)
            for each in frontier
        ]
        if not all(key in known for key in keys):
            return "no power was recorded"
        at = np.array([each.x for each in frontier])
        level = np.array([known[key] for key in keys])
        words = "J/token: power of the GPUs alone, on straight lines between the frontier points"
        return Vertical(lambda x, tput: np.interp(x, at, level) / tput, words)
    return Vertical(lambda _, tput: tput)


def provisioned_kw(hardware: str, pricing: Pricing, on: date | None) -> tuple[float, str] | None:
    """Return the power per GPU that a site has to provide, in kW, and where the figure is from.

    One given with `kw` counts, times `pue`; else the table's, of the last estimate up to a day.
    """
    if hardware in pricing.kw:
        kw = pricing.kw[hardware] * (pricing.pue or 1)
        building = f" x PUE {pricing.pue:g}" if pricing.pue else ""
        return kw, f"tok/s/MW: {hardware} {pricing.kw[hardware]:g} kW per GPU{building}, as given"
    known = specifications().get(hardware)
    if known is None:
        return None
    dates = sorted(known.all_in_kw)
    day = max((each for each in dates if on is None or each <= on), default=dates[0])
    kw = known.all_in_kw[day]
    return kw, f"tok/s/MW: {hardware} {kw:g} kW per GPU, all in (estimate of {day:%Y-%m})"
