"""A series fitted on an x axis and one kind of throughput: what every y axis is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from functools import partial
from typing import Literal

import numpy as np

from upcurve.dashboard.answers.axes import X_AXES
from upcurve.dashboard.answers.selection import figures_of
from upcurve.dashboard.catalogue import Catalogue
from upcurve.dashboard.contract.curves import ChartPoint
from upcurve.dashboard.contract.questions import Rule, XName, YName
from upcurve.dashboard.reader import Reader
from upcurve.frontier.axes import AxisFit, AxisPoint
from upcurve.frontier.build_values import Measurement, watts
from upcurve.frontier.interpolation import Floats
from upcurve.frontier.point import Place, Point
from upcurve.frontier.repeats import split_repeats
from upcurve.records.browse import Figures
from upcurve.records.comparable import with_facts

Kind = Literal["total", "input", "output"]
KINDS: dict[YName, Kind] = {
    "total": "total",
    "input": "input",
    "output": "output",
    "cost": "total",
    "per_mw": "total",
    "joules": "total",
}
"""y -> the throughput that it is made of."""

SAMPLES = 80
"""Along a curve, besides its knots: at 1,000 pixels no corner is seen."""
BAND_SAMPLES = 24
_WANTED = {
    "e2e": "no end-to-end latency was recorded",
    "ttft": "no time to first token was recorded",
    "input": "no input throughput was recorded",
    "output": "no output throughput was recorded",
}


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """One series; `y` of its points, its line and its band are tok/s/GPU of one kind."""

    fingerprints: frozenset[str]
    frontier: tuple[ChartPoint, ...] = ()
    dominated: tuple[ChartPoint, ...] = ()
    x: Floats = field(default_factory=partial(np.zeros, 0))
    """Along the curve; float64 [N], empty for fewer than two frontier points."""
    y: Floats = field(default_factory=partial(np.zeros, 0))
    band_x: Floats = field(default_factory=partial(np.zeros, 0))
    low: Floats = field(default_factory=partial(np.zeros, 0))
    high: Floats = field(default_factory=partial(np.zeros, 0))
    reason: str | None = None
    """Why there is nothing to draw."""


def fitted(
    reader: Reader,
    catalogue: Catalogue,
    series: tuple[str, tuple[int, int]],
    x: XName,
    kind: Kind,
    rule: Rule,
) -> Fitted:
    """Return a series fitted, made once while its points stay the same.

    Args:
        reader: the store.
        catalogue: of it.
        series: name and workload.
        x: the x axis.
        kind: of throughput.
        rule: how to interpolate.
    """
    key = ("fitted", *series, catalogue.one(series[0]).state, x, kind, rule)
    make = partial(_fit, reader, catalogue, series, x, kind, rule)
    return reader.remembered(key, make)


def recorded_power(
    reader: Reader, catalogue: Catalogue, series: tuple[str, tuple[int, int]]
) -> Mapping[Place, float]:
    """Return the recorded power per GPU of a series' operating points, in W."""

    def make() -> Mapping[Place, float]:
        of = figures_of(reader.store, catalogue, *series, detailed=True)
        measured = [
            Measurement(each.point, each.ttft_ms, each.tpot_ms, each.watts_per_gpu) for each in of
        ]
        return watts(measured)

    return reader.remembered(("power", *series, catalogue.one(series[0]).state), make)


def _fit(
    reader: Reader,
    catalogue: Catalogue,
    series: tuple[str, tuple[int, int]],
    x: XName,
    kind: Kind,
    rule: Rule,
) -> Fitted:
    of = figures_of(reader.store, catalogue, *series, detailed=x == "e2e")
    fingerprints = frozenset(each.fingerprint for each in of)
    points = _placed(of, x, kind)
    if not points:
        reason = next((_WANTED[name] for name in (x, kind) if name in _WANTED), "it has no points")
        return Fitted(fingerprints, reason=reason)
    # What requests add to the noise of a point is in its trace.
    if x == "interactivity" and kind == "total" and any(each.trace for each in of):
        points = with_facts(reader.store, points, split_repeats(points))
    fit = AxisFit.of(points, rising=X_AXES[x].higher_is_better, rule=rule)
    by_id = {each.point.id: each for each in of}
    frontier = tuple(_point(each, by_id) for each in fit.frontier)
    dominated = tuple(_point(each, by_id) for each in fit.dominated)
    if len(frontier) < 2:
        return Fitted(fingerprints, frontier, dominated)
    along = fit.positions(SAMPLES)
    # Few enough for speed: a band is smooth.
    at = along[:: max(1, len(along) // BAND_SAMPLES)]
    held = [
        (place, *interval)
        for place, interval in zip(at.tolist(), fit.band(at), strict=True)
        if interval is not None
    ]
    columns = np.array(held, dtype=np.float64).reshape(-1, 3).T
    return Fitted(fingerprints, frontier, dominated, along, fit.sample(along), *columns)


def _placed(of: Sequence[Figures], x: XName, kind: Kind) -> list[Point]:
    """Return points with x in `interactivity` and the kind of throughput in `tput_per_gpu`."""
    if x == "interactivity" and kind == "total":
        return [each.point for each in of]
    found = []
    for each in of:
        at = {"interactivity": each.point.interactivity, "e2e": each.e2e_ms, "ttft": each.ttft_ms}
        tput = {
            "total": each.point.tput_per_gpu,
            "input": each.input_tput_per_gpu,
            "output": each.output_tput_per_gpu,
        }
        horizontal, vertical = at[x], tput[kind]
        if horizontal and vertical:
            found.append(replace(each.point, interactivity=horizontal, tput_per_gpu=vertical))
    return found


def _point(each: AxisPoint, by_id: Mapping[int | None, Figures]) -> ChartPoint:
    point = each.point
    newest = by_id[max(each.measured, key=lambda own: own.id or 0).id]
    checks = [by_id[own.id].accuracy for own in each.measured]
    passed = [check.get("passed") for check in checks if check]
    return ChartPoint(
        x=point.interactivity,
        y=point.tput_per_gpu,
        x_interval=each.x_interval,
        y_interval=each.y_interval,
        layout=point.place.layout,
        tp=point.tp,
        ep=point.ep,
        dp=point.dp,
        gpus=point.gpus,
        prefill_gpus=point.prefill_gpus,
        concurrency=point.concurrency,
        repeats=len(each.measured),
        run=newest.run,
        point=newest.point.id or 0,
        measured_on=newest.measured_at.astimezone(UTC).date().isoformat(),
        accuracy_passed=None if not passed or None in passed else all(passed),
    )
