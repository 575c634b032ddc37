"""A comparison of stored series, whole: what is compared, at which prices, what to say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from upcurve.frontier.comparison import Comparison, compare
from upcurve.frontier.cost import Price, PriceTable
from upcurve.frontier.grid import tidy_rows
from upcurve.frontier.interpolation import DEFAULT_RULE
from upcurve.frontier.targets import round_targets, targets_every
from upcurve.frontier.what_if import WhatIfReading, what_if_lines, what_if_readings
from upcurve.records.comparable import (
    ComparableSeries,
    comparable_series,
    differences,
    series_flags,
)
from upcurve.records.published import prices as published_prices
from upcurve.records.reader import StoreReader
from upcurve.records.run import SeriesSummary
from upcurve.records.what_if import electricity, recorded_watts, what_if_prices


@dataclass(frozen=True, slots=True)
class Pricing:
    """What tokens are priced by; the fields are the options of `upcurve compare`."""

    given: Mapping[str, float] = field(default_factory=dict)
    """Hardware -> USD per GPU-hour, instead of the dated table's."""
    tier: str = "hyperscaler"
    on: date | None = None
    """Date of the prices; None takes each series' own last measurement."""
    as_hardware: Mapping[str, str] = field(default_factory=dict)
    kw: Mapping[str, float] = field(default_factory=dict)
    usd_per_kwh: float | None = None
    pue: float | None = None

    def of(
        self, compared: Sequence[ComparableSeries], table: PriceTable
    ) -> tuple[dict[str, Price | None], list[str]]:
        """Return prices by series name, and notes; as `what_if_prices` does."""
        return what_if_prices(
            compared,
            table,
            tier=self.tier,
            on=self.on,
            given=self.given,
            as_hardware=self.as_hardware,
            electricity=electricity(self.kw, self.usd_per_kwh, self.pue),
        )


@dataclass(frozen=True, slots=True)
class Question:
    """What `upcurve compare` is asked."""

    series: Sequence[str] = ()
    """None means all of the store."""
    baseline: str | None = None
    """None takes the first; one that is not among `series` joins them, in front."""
    targets: Sequence[float] | None = None
    """Interactivities in tok/s/user; None takes round ones that every series reaches."""
    every: float | None = None
    """Every multiple of it that a frontier covers, instead of `targets`."""
    rule: str = DEFAULT_RULE
    isl: int | None = None
    osl: int | None = None
    output_weight: float | None = None
    pricing: Pricing = field(default_factory=Pricing)


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A comparison with all that is said beside it."""

    comparison: Comparison
    series: list[ComparableSeries]
    prices: dict[str, Price | None]
    further: dict[str, list[WhatIfReading]]
    notes: list[str]
    """What is said beside it, but for prices: each series has its own as a flag."""
    warnings: list[str]
    """What sets the series apart beyond the change they measure."""

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `upcurve compare --json` prints."""
        printed = self.comparison.to_dict()
        for each in printed["series"]:
            for reading, more in zip(each["at"], self.further[each["name"]], strict=True):
                reading |= asdict(more)
        return printed

    def tidy_rows(self) -> list[dict[str, object]]:
        """Return one flat row for each series and target."""
        readings = [asdict(each) for of in self.further.values() for each in of]
        rows = tidy_rows(self.comparison, self.prices)
        return [{**row, **more} for row, more in zip(rows, readings, strict=True)]

    def price_lines(self) -> list[str]:
        """Return the prices that costs are made of, each once, in words."""
        return [
            f"Price: {line}."
            for line in sorted({each.describe() for each in self.prices.values() if each})
        ]

    def details(self) -> dict[str, str]:
        """Return each series in words, by name."""
        return {each.summary.name: each.describe() for each in self.series}


def compare_stored(
    store: StoreReader, question: Question, known: Mapping[str, SeriesSummary] | None = None
) -> Compared:
    """Compare series of a store at equal interactivity.

    Args:
        store: where they are.
        question: which, at what targets, at what prices.
        known: all series of the store, where the caller has them.

    Raises:
        InputError: as `comparable_series`, `what_if_prices` and `compare` do.
    """
    names, baseline = tuple(question.series), question.baseline
    if baseline and names and baseline not in names:
        names = (baseline, *names)
    chosen = comparable_series(store, names, isl=question.isl, osl=question.osl, known=known)
    watts = recorded_watts(store, chosen)
    prices, notes = question.pricing.of(chosen, published_prices())
    points = {each.summary.name: each.points for each in chosen}
    targets = question.targets
    if question.every:
        targets = targets_every(points, question.every)
    if targets is None:
        targets = round_targets(points)
        listed = ",".join(f"{target:g}" for target in targets)
        notes.append(f"Targets: --at {listed}, chosen where every frontier has a value.")
    comparison = compare(
        points,
        baseline=baseline or next(iter(points)),
        targets=targets,
        usd_per_gpu_hour={name: price.usd_per_gpu_hour for name, price in prices.items() if price},
        rule=question.rule,
        noise={each.summary.name: each.noise for each in chosen},
        flags=series_flags(chosen, prices),
    )
    workloads = {each.summary.name: each.workload for each in chosen}
    further = what_if_readings(comparison, watts, workloads, question.output_weight)
    notes += what_if_lines(comparison, further, question.output_weight)
    return Compared(comparison, chosen, prices, further, notes, differences(chosen))
