"""The frontier chart: points, curve, band and change marker of each series, on chosen axes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from functools import partial

import numpy as np

from upcurve.dashboard.answers.axes import (
    X_AXES,
    Y_AXES,
    Vertical,
    placed,
    provisioned_kw,
    vertical,
)
from upcurve.dashboard.answers.selection import chosen, comparable, figures_of, priced
from upcurve.dashboard.catalogue import Catalogue, group_id
from upcurve.dashboard.contract.common import Flag, Interval, Link
from upcurve.dashboard.contract.curves import Band, ChartPoint, ChartSeries, Frontier, Line, Marker
from upcurve.dashboard.contract.questions import FrontierQuestion
from upcurve.dashboard.lineage import Lineage, lineages
from upcurve.dashboard.reader import Reader
from upcurve.frontier.axes import AxisFit, AxisPoint
from upcurve.frontier.cost import Price
from upcurve.frontier.interpolation import Floats
from upcurve.frontier.point import Point
from upcurve.frontier.repeats import split_repeats
from upcurve.frontier.trend import Measurement, watts
from upcurve.records.browse import Figures
from upcurve.records.comparable import ComparableSeries, series_flags, with_facts
from upcurve.records.compared import Pricing

SAMPLES = 80
"""Along a curve, besides its knots: at 1,000 pixels no corner is seen."""
MOST_SERIES = 50
DIGITS = 6


def frontier(reader: Reader, question: FrontierQuestion, most: int = MOST_SERIES) -> Frontier:
    """Answer `frontier`."""
    catalogue = reader.catalogue()
    wanted = chosen(catalogue, question.series, question.group, question.isl, question.osl)
    left_off = max(0, len(wanted) - most)
    wanted = wanted[:most]
    pricing = question.pricing()
    empty = [comparable(catalogue, name, workload, ()) for name, workload in wanted]
    prices, notes = priced(empty, pricing)
    markers = _Markers(catalogue)
    line = f"Interpolated on each frontier by the rule '{question.rule}'; nothing is extrapolated."
    assumptions = [line]
    drawn = []
    for name, workload in wanted:
        price = prices[name]
        facts = catalogue.one(name)
        group = catalogue.group(group_id(facts.summary.models[0], *workload))
        asked = question.model_dump_json(exclude={"series", "group", "isl", "osl", "price"})
        key = ("chart", name, facts.state, group.state, asked, price)
        found, assumed = reader.remembered(
            key,
            partial(_drawn, reader, catalogue, question, (name, workload), price, markers),
        )
        drawn.append(found)
        assumptions += assumed
    if question.y == "cost":
        assumptions += [f"Price: {price.describe()}." for price in prices.values() if price]
        assumptions += notes
    if any(each.band for each in drawn):
        assumptions.append("Bands: 95 % interval along the curve, by the bootstrap over repeats.")
    return Frontier(
        x=X_AXES[question.x],
        y=Y_AXES[question.y],
        rule=question.rule,
        series=drawn,
        left_off=left_off,
        assumptions=list(dict.fromkeys(assumptions)),
    )


def _drawn(
    reader: Reader,
    catalogue: Catalogue,
    question: FrontierQuestion,
    series: tuple[str, tuple[int, int]],
    price: Price | None,
    markers: _Markers,
) -> tuple[ChartSeries, list[str]]:
    name, workload = series
    detailed = question.x == "e2e" or question.y == "joules"
    of = figures_of(reader.store, catalogue, name, workload, detailed=detailed)
    own = comparable(catalogue, name, workload, of)
    chart = _Chart(reader, catalogue, question, question.pricing(), own, of)
    found = chart.draw(price, markers)
    flags = series_flags([own], {name: price})[name]
    found.flags = [Flag(code=each.code, text=each.text) for each in flags]
    return found, chart.assumptions


class _Chart:
    """One series on its way into a chart."""

    def __init__(
        self,
        reader: Reader,
        catalogue: Catalogue,
        question: FrontierQuestion,
        pricing: Pricing,
        series: ComparableSeries,
        of: Sequence[Figures],
    ) -> None:
        self._reader = reader
        self._catalogue = catalogue
        self._question = question
        self._pricing = pricing
        self._series = series
        self._of = of
        self._by_id = {each.point.id: each for each in of}
        self.assumptions: list[str] = []

    def draw(self, price: Price | None, markers: _Markers) -> ChartSeries:
        name, workload = self._series.summary.name, self._series.workload
        facts = self._catalogue.one(name)
        group = group_id(facts.summary.models[0], *workload)
        found = ChartSeries(
            name=name,
            describe=self._series.describe(),
            group=group,
            hardware=list(facts.summary.hardware),
            precisions=list(facts.precisions),
            engine=" and ".join(facts.engines),
            usd_per_gpu_hour=price.usd_per_gpu_hour if price else None,
            frontier=[],
            dominated=[],
            dominated_count=0,
            curve=Line(x=[], y=[]),
            band=None,
            marker=None,
            flags=[],
            reason=None,
        )
        question = self._question
        points, found.reason = placed(list(self._of), question.x, question.y)
        if not points:
            return found
        if question.x == "interactivity" and question.y not in ("input", "output"):
            points = with_facts(self._reader.store, points, split_repeats(points))
        rising = X_AXES[question.x].higher_is_better
        fit = AxisFit.of(points, rising=rising, rule=question.rule)
        made = self._vertical(fit, price)
        if isinstance(made, str):
            found.reason = made
            return found
        found.frontier = [self._point(each, made) for each in fit.frontier]
        found.dominated_count = len(fit.dominated)
        # Power is read between frontier points: it says nothing of points beside them.
        if question.dominated and question.y != "joules":
            found.dominated = [self._point(each, made) for each in fit.dominated]
        if len(fit.frontier) > 1:
            x = fit.positions(SAMPLES)
            found.curve = Line(x=_short(x), y=_short(made.of(x, fit.sample(x))))
            found.band = _band(fit, x, made)
        links = markers.of(group, name)
        if links:
            best = found.frontier[0 if rising else -1]
            found.marker = Marker(x=best.x, y=best.y, links=links)
        return found

    def _vertical(self, fit: AxisFit, price: Price | None) -> Vertical | str:
        name = self._series.summary.name
        hardware = self._pricing.as_hardware.get(name, self._series.summary.hardware[0])
        power = None
        if len(self._series.summary.hardware) == 1:
            on = self._pricing.on or self._series.summary.last_measured_on
            power = provisioned_kw(hardware, self._pricing, on)
        measured = [
            Measurement(each.point, each.ttft_ms, each.tpot_ms, each.watts_per_gpu)
            for each in self._of
        ]
        made = vertical(
            self._question.y,
            usd_per_gpu_hour=price.usd_per_gpu_hour if price else None,
            power=power,
            watts=watts(measured),
            fit=fit,
        )
        if isinstance(made, Vertical) and made.assumption:
            self.assumptions.append(made.assumption + ".")
        return made

    def _point(self, each: AxisPoint, made: Vertical) -> ChartPoint:
        point = each.point
        newest = self._by_id[max(each.measured, key=lambda own: own.id or 0).id]
        checks = [self._by_id[own.id].accuracy for own in each.measured]
        passed = [check.get("passed") for check in checks if check]
        return ChartPoint(
            x=point.interactivity,
            y=_at(made, point),
            x_interval=each.x_interval,
            y_interval=_made(each.y_interval, point.interactivity, made),
            tp=point.tp,
            gpus=point.gpus,
            concurrency=point.concurrency,
            repeats=len(each.measured),
            run=newest.run,
            point=newest.point.id or 0,
            measured_on=newest.measured_at.astimezone(UTC).date().isoformat(),
            accuracy_passed=None if not passed or None in passed else all(passed),
        )


def _at(made: Vertical, point: Point) -> float:
    x, y = np.array([point.interactivity]), np.array([point.tput_per_gpu])
    return float(made.of(x, y)[0])


def _made(interval: Interval | None, x: float, made: Vertical) -> Interval | None:
    if interval is None:
        return None
    ends = made.of(np.array([x, x]), np.array(interval))
    low, high = sorted(float(each) for each in ends)
    return low, high


def _band(fit: AxisFit, x: Floats, made: Vertical) -> Band | None:
    # Few enough for speed: a band is smooth.
    at = x[:: max(1, len(x) // 40)]
    found = [
        (place, _made(interval, place, made))
        for place, interval in zip(at.tolist(), fit.band(at), strict=True)
    ]
    held = [(place, interval) for place, interval in found if interval is not None]
    if len(held) < 2:
        return None
    return Band(
        x=_short(np.array([place for place, _ in held])),
        low=_short(np.array([interval[0] for _, interval in held])),
        high=_short(np.array([interval[1] for _, interval in held])),
    )


def _short(values: Floats) -> list[float]:
    """Return values with the digits that a chart can show: answers are a third as long."""
    return [float(f"{each:.{DIGITS}g}") for each in values]


class _Markers:
    """Changes that came with series, group by group."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._known: dict[str, list[Lineage]] = {}

    def of(self, group: str, series: str) -> list[Link]:
        if group not in self._known:
            self._known[group] = lineages(self._catalogue, self._catalogue.group(group))
        found: dict[str, Link] = {}
        for lineage in self._known[group]:
            for index, build in enumerate(lineage.history.builds):
                if series in build.series:
                    found |= {each.text: each for each in lineage.changes(index)}
        return list(found.values())
