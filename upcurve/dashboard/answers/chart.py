"""The frontier chart: points, curve, band and change marker of each series, on chosen axes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from upcurve.dashboard.answers.axes import X_AXES, Y_AXES, Vertical, provisioned_kw, vertical
from upcurve.dashboard.answers.fitted import KINDS, Fitted, fitted, recorded_power
from upcurve.dashboard.answers.selection import chosen, comparable, priced
from upcurve.dashboard.catalogue import Catalogue, group_id
from upcurve.dashboard.contract.common import Flag, Link
from upcurve.dashboard.contract.curves import Band, ChartPoint, ChartSeries, Frontier, Line, Marker
from upcurve.dashboard.contract.questions import FrontierQuestion
from upcurve.dashboard.lineage import lineages
from upcurve.dashboard.reader import Reader
from upcurve.frontier.cost import Price
from upcurve.frontier.interpolation import Floats
from upcurve.records.comparable import series_flags

MOST_SERIES = 50
DIGITS = 6


def frontier(reader: Reader, question: FrontierQuestion) -> Frontier:
    """Answer `frontier`."""
    catalogue = reader.catalogue()
    wanted = chosen(catalogue, question.series, question.group, question.isl, question.osl)
    left_off = max(0, len(wanted) - MOST_SERIES)
    wanted = wanted[:MOST_SERIES]
    series = [comparable(catalogue, name, workload, ()) for name, workload in wanted]
    prices, notes = priced(series, question.pricing())
    markers = _Markers(reader, catalogue)
    line = f"Interpolated on each frontier by the rule '{question.rule}'; nothing is extrapolated."
    assumptions = [line]
    drawn = []
    for each in wanted:
        chart = _Chart(reader, catalogue, question, each, prices[each[0]])
        drawn.append(chart.draw(markers))
        assumptions += chart.assumptions
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


class _Chart:
    """One series on its way into a chart."""

    def __init__(
        self,
        reader: Reader,
        catalogue: Catalogue,
        question: FrontierQuestion,
        series: tuple[str, tuple[int, int]],
        price: Price | None,
    ) -> None:
        self._question = question
        self._pricing = question.pricing()
        self._price = price
        self._series = comparable(catalogue, *series, ())
        self._facts = catalogue.one(series[0])
        kind = KINDS[question.y]
        self._fit = fitted(reader, catalogue, series, question.x, kind, question.rule)
        self._power = partial(recorded_power, reader, catalogue, series)
        self.assumptions: list[str] = []

    def draw(self, markers: _Markers) -> ChartSeries:
        """Return the series."""
        name, workload = self._series.summary.name, self._series.workload
        group = group_id(self._facts.summary.models[0], *workload)
        own = replace(self._series, fingerprints=self._fit.fingerprints)
        flags = series_flags([own], {name: self._price})[name]
        found = ChartSeries(
            name=name,
            describe=self._series.describe(),
            group=group,
            hardware=list(self._facts.summary.hardware),
            precisions=list(self._facts.precisions),
            engine=" and ".join(self._facts.engines),
            usd_per_gpu_hour=self._price.usd_per_gpu_hour if self._price else None,
            frontier=[],
            dominated=[],
            dominated_count=0,
            curve=Line(x=[], y=[]),
            band=None,
            marker=None,
            flags=[Flag(code=each.code, text=each.text) for each in flags],
            reason=self._fit.reason,
        )
        if found.reason is not None:
            return found
        made = self._vertical()
        if isinstance(made, str):
            found.reason = made
            return found
        found.frontier = [_made(each, made) for each in self._fit.frontier]
        found.dominated_count = len(self._fit.dominated)
        # Power is read between frontier points: it says nothing of points beside them.
        if self._question.dominated and self._question.y != "joules":
            found.dominated = [_made(each, made) for each in self._fit.dominated]
        found.curve = Line(x=_short(self._fit.x), y=_short(made.of(self._fit.x, self._fit.y)))
        found.band = _band(self._fit, made)
        links = markers.of(group, name)
        if links:
            first = X_AXES[self._question.x].higher_is_better
            best = found.frontier[0 if first else -1]
            found.marker = Marker(x=best.x, y=best.y, links=links)
        return found

    def _vertical(self) -> Vertical | str:
        summary = self._series.summary
        power = None
        if len(summary.hardware) == 1:
            hardware = self._pricing.as_hardware.get(summary.name, summary.hardware[0])
            on = self._pricing.on or summary.last_measured_on
            power = provisioned_kw(hardware, self._pricing, on)
        made = vertical(
            self._question.y,
            usd_per_gpu_hour=self._price.usd_per_gpu_hour if self._price else None,
            power=power,
            watts=self._power,
            frontier=self._fit.frontier,
        )
        if isinstance(made, Vertical) and made.assumption:
            self.assumptions.append(made.assumption + ".")
        return made


def _made(point: ChartPoint, made: Vertical) -> ChartPoint:
    """Return a point whose y is made of its throughput."""
    values = np.array([point.y, *(point.y_interval or ())])
    y, *ends = made.of(np.full(values.shape, point.x), values).tolist()
    interval = (min(ends), max(ends)) if ends else None
    return point.model_copy(update={"y": y, "y_interval": interval})


def _band(fit: Fitted, made: Vertical) -> Band | None:
    if len(fit.band_x) < 2:
        return None
    ends = np.stack([made.of(fit.band_x, fit.low), made.of(fit.band_x, fit.high)])
    return Band(x=_short(fit.band_x), low=_short(ends.min(axis=0)), high=_short(ends.max(axis=0)))


def _short(values: Floats) -> list[float]:
    """Return values with the digits that a chart can show: answers are a third as long."""
    return [float(f"{each:.{DIGITS}g}") for each in values]


class _Markers:
    """Changes that came with series, group by group."""

    def __init__(self, reader: Reader, catalogue: Catalogue) -> None:
        self._reader = reader
        self._catalogue = catalogue

    def of(self, group: str, series: str) -> list[Link]:
        facts = self._catalogue.group(group)
        known = self._reader.remembered(
            ("lineages", facts.state), lambda: lineages(self._catalogue, facts)
        )
        found: dict[str, Link] = {}
        for lineage in known:
            for index, build in enumerate(lineage.history.builds):
                if series in build.series:
                    found |= {each.text: each for each in lineage.changes(index)}
        return list(found.values())
