"""The overview: each group's best series at chosen interactivities, and its newest change."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from upcurve.dashboard.answers.about import group_of
from upcurve.dashboard.answers.selection import comparable, priced
from upcurve.dashboard.catalogue import Catalogue, GroupFacts
from upcurve.dashboard.contract.common import Flag
from upcurve.dashboard.contract.meta import (
    AccuracyGlance,
    Change,
    Overview,
    OverviewRow,
    TierReading,
)
from upcurve.dashboard.contract.questions import OverviewQuestion, numbers
from upcurve.dashboard.lineage import Lineage, lineages
from upcurve.dashboard.reader import Reader
from upcurve.frontier.comparison import SeriesComparison, TargetReading
from upcurve.frontier.comparison import compare as compare_points
from upcurve.frontier.cost import Price
from upcurve.frontier.interpolation import Curve
from upcurve.frontier.point import Point
from upcurve.frontier.repeats import frontier_of_repeats, split_repeats
from upcurve.records.browse import Figures, figures
from upcurve.records.comparable import with_facts

Verdict = Literal["better", "worse", "no change shown", "one run", "not comparable"]


def overview(reader: Reader, question: OverviewQuestion) -> Overview:
    """Answer `overview`."""
    catalogue = reader.catalogue()
    tiers = sorted(numbers(question.tiers) or [])
    found = [
        group
        for group in catalogue.groups.values()
        if question.q.lower() in group.model.lower()
        and question.hardware in (None, *group.hardware)
    ]
    shown = found[question.offset : question.offset + question.limit]
    rows: list[OverviewRow] = []
    assumptions: dict[str, None] = {}
    prices = question.model_dump_json(exclude={"q", "limit", "offset"})
    for group in shown:
        row, assumed = reader.remembered(
            ("overview", group.state, prices),
            partial(_row, reader, catalogue, group, question, tiers),
        )
        rows.append(row)
        assumptions |= dict.fromkeys(assumed)
    return Overview(
        tiers=tiers,
        total=len(found),
        offset=question.offset,
        rows=rows,
        assumptions=list(assumptions),
    )


def _row(
    reader: Reader,
    catalogue: Catalogue,
    group: GroupFacts,
    question: OverviewQuestion,
    tiers: Sequence[float],
) -> tuple[OverviewRow, list[str]]:
    row = _Row(reader, catalogue, group, question)
    return row.answer(tiers), row.assumptions


@dataclass(frozen=True, slots=True)
class _Best:
    """The series with the highest throughput at a tier."""

    name: str
    value: float


class _Row:
    """One group on its way into the overview."""

    def __init__(
        self, reader: Reader, catalogue: Catalogue, group: GroupFacts, question: OverviewQuestion
    ) -> None:
        self._reader = reader
        self._catalogue = catalogue
        self._group = group
        self._pricing = question.pricing()
        self._hardware = question.hardware
        self._lineages = lineages(catalogue, group)
        runs = [run.id for name in group.series for run in catalogue.series[name].runs]
        self._of: dict[str, list[Figures]] = defaultdict(list)
        for each in figures(reader.store, runs, group.isl, group.osl):
            self._of[catalogue.runs[each.run].series].append(each)
        self.assumptions: list[str] = []

    def answer(self, tiers: Sequence[float]) -> OverviewRow:
        """Return the row."""
        curves = {name: _curve(own) for name, own in self._of.items() if self._fits(name)}
        best = [_best(curves, tier) for tier in tiers]
        names = list(dict.fromkeys(each.name for each in best if each))
        readings = {name: self._readings(name, tiers) for name in names}
        changes = {name: self._changes(name, tiers) for name in names}
        found = []
        for place, (tier, each) in enumerate(zip(tiers, best, strict=True)):
            if each is None:
                found.append(_nothing(tier, curves.values()))
                continue
            reading, price = readings[each.name]
            found.append(self._tier(each.name, reading.at[place], price, changes[each.name][place]))
        checked, failed = self._group.checked, self._group.failed
        return OverviewRow(
            group=group_of(self._group),
            tiers=found,
            accuracy=AccuracyGlance(checked=checked, failed=failed) if checked else None,
        )

    def _fits(self, name: str) -> bool:
        return self._hardware in (None, *self._catalogue.series[name].summary.hardware)

    def _readings(self, name: str, tiers: Sequence[float]) -> tuple[SeriesComparison, Price | None]:
        own = comparable(self._catalogue, name, (self._group.isl, self._group.osl), self._of[name])
        prices, _ = priced([own], self._pricing)
        price = prices[name]
        if price:
            self.assumptions.append(f"Price: {price.describe()}.")
        read = compare_points(
            {name: self._known(own.points)},
            baseline=name,
            targets=tiers,
            usd_per_gpu_hour={name: price.usd_per_gpu_hour if price else None},
            whole=False,
        )
        return read.series[0], price

    def _known(self, points: Sequence[Point]) -> list[Point]:
        return with_facts(self._reader.store, list(points), split_repeats(points))

    def _changes(self, name: str, tiers: Sequence[float]) -> list[Change | None]:
        """Return the newest move of the history that a series belongs to, at each tier."""
        own = next(
            (
                each
                for each in self._lineages
                if any(name in build.series for build in each.history.builds)
            ),
            None,
        )
        if own is None or len(own.runs) < 2:
            return [None] * len(tiers)
        before, after = own.history.builds[-2:]
        points = {
            build.label: self._known(self._points(own, place))
            for place, build in ((-2, before), (-1, after))
        }
        read = compare_points(
            points, baseline=before.label, targets=tiers, usd_per_gpu_hour={}, whole=False
        )
        series = list(dict.fromkeys([before.series[-1], after.series[-1]]))
        return [
            _change(before.label, after.label, series, reading) for reading in read.series[1].at
        ]

    def _points(self, lineage: Lineage, place: int) -> list[Point]:
        runs = set(lineage.runs[place])
        return [each.point for own in self._of.values() for each in own if each.run in runs]

    def _tier(
        self, name: str, reading: TargetReading, price: Price | None, change: Change | None
    ) -> TierReading:
        hardware = self._catalogue.series[name].summary.hardware
        return TierReading(
            interactivity=reading.interactivity,
            best=name,
            hardware=" and ".join(hardware),
            tput_per_gpu=reading.tput_per_gpu,
            interval=reading.interval,
            status=reading.status,
            segment=reading.segment,
            usd_per_million_tokens=reading.usd_per_million_tokens if price else None,
            flags=_flags(reading),
            change=change,
        )


def _curve(own: Sequence[Figures]) -> Curve:
    knots = frontier_of_repeats([each.point for each in own])
    return Curve.through(
        [point.interactivity for point in knots], [point.tput_per_gpu for point in knots]
    )


def _best(curves: dict[str, Curve], tier: float) -> _Best | None:
    read = [(name, curve.at(tier).value) for name, curve in curves.items()]
    found = [_Best(name, value) for name, value in read if value is not None]
    return max(found, key=lambda each: each.value, default=None)


def _nothing(tier: float, curves: Iterable[Curve]) -> TierReading:
    """Return a tier without a value, and why, where all curves have one reason."""
    reasons = {curve.at(tier).status for curve in curves}
    return TierReading(
        interactivity=tier,
        best=None,
        hardware=None,
        tput_per_gpu=None,
        interval=None,
        status=reasons.pop() if len(reasons) == 1 else None,
        segment=None,
        usd_per_million_tokens=None,
        flags=[],
        change=None,
    )


def _change(before: str, after: str, series: list[str], reading: TargetReading) -> Change:
    infinite = reading.ratio is not None and math.isinf(reading.ratio)
    return Change(
        before=before,
        after=after,
        series=series,
        ratio="inf" if infinite else reading.ratio,
        ratio_interval=reading.ratio_interval,
        verdict=_verdict(reading),
        flags=_flags(reading),
    )


def _verdict(reading: TargetReading) -> Verdict:
    if reading.ratio is None:
        return "not comparable"
    if math.isinf(reading.ratio):
        return "better"
    if reading.ratio_interval is None:
        return "one run"
    low, high = reading.ratio_interval
    return "better" if low > 1 else "worse" if high < 1 else "no change shown"


def _flags(reading: TargetReading) -> list[Flag]:
    return [Flag(code=each.code, text=each.text) for each in reading.flags]
