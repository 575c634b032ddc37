"""Series that a question chooses, made ready: figures, prices, facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from upcurve.dashboard.catalogue import Catalogue, GroupFacts
from upcurve.errors import InputError
from upcurve.frontier.cost import Price
from upcurve.frontier.point import Point
from upcurve.frontier.repeats import frontier_of_repeats
from upcurve.records.browse import Figures, figures
from upcurve.records.comparable import ComparableSeries
from upcurve.records.compared import Pricing
from upcurve.records.published import prices as published_prices
from upcurve.records.reader import StoreReader


def chosen(
    catalogue: Catalogue,
    names: Sequence[str],
    group: str | None,
    isl: int | None,
    osl: int | None,
) -> list[tuple[str, tuple[int, int]]]:
    """Return names with the workload of each: those named, else all of a group, newest first.

    Raises:
        InputError: no such series or group, or a series has no or several such workloads.
    """
    if group is not None:
        facts = catalogue.group(group)
        isl, osl = facts.isl, facts.osl
        names = names or facts.series
    elif not names:
        raise InputError("series", "none is chosen", "give series or group")
    return [(name, _workload(catalogue, name, isl, osl)) for name in dict.fromkeys(names)]


def _workload(catalogue: Catalogue, name: str, isl: int | None, osl: int | None) -> tuple[int, int]:
    own = sorted(catalogue.one(name).summary.workloads)
    fits = [each for each in own if isl in (None, each[0]) and osl in (None, each[1])]
    if len(fits) == 1:
        return fits[0]
    listed = ", ".join(f"isl={a}&osl={b}" for a, b in (fits or own)[:10]) or "no points"
    problem = "it has several workloads" if fits else "no points of that isl and osl"
    raise InputError(f"series {name}", problem, f"it has {listed}")


def figures_of(
    store: StoreReader,
    catalogue: Catalogue,
    name: str,
    workload: tuple[int, int],
    *,
    detailed: bool = False,
) -> list[Figures]:
    """Return the points of a series."""
    runs = [run.id for run in catalogue.one(name).runs]
    return figures(store, runs, *workload, detailed=detailed)


def comparable(
    catalogue: Catalogue, name: str, workload: tuple[int, int], of: Sequence[Figures]
) -> ComparableSeries:
    """Return a series as prices and flags are found for it."""
    fingerprints = frozenset(each.fingerprint for each in of)
    points: list[Point] = [each.point for each in of]
    return ComparableSeries(catalogue.one(name).summary, workload, fingerprints, points)


def priced(
    series: Sequence[ComparableSeries], pricing: Pricing
) -> tuple[dict[str, Price | None], list[str]]:
    """Return prices by series, and notes; what is given for others than these is left aside.

    A page keeps one set of prices over all of its charts, and each chart shows some series.
    """
    names = {each.summary.name for each in series}
    renamed = {name: to for name, to in pricing.as_hardware.items() if name in names}
    used = set(renamed.values()) | {
        hardware
        for each in series
        if each.summary.name not in renamed
        for hardware in each.summary.hardware
    }
    kw = {h: value for h, value in pricing.kw.items() if h in used}
    own = replace(
        pricing,
        given={h: value for h, value in pricing.given.items() if h in used},
        as_hardware=renamed,
        kw=kw,
        usd_per_kwh=pricing.usd_per_kwh if kw else None,
        pue=pricing.pue if kw else None,
    )
    if own.usd_per_kwh is None:  # power alone is for tok/s/MW
        own = replace(own, kw={}, pue=None)
    return own.of(series, published_prices())


def curve_span(
    store: StoreReader, catalogue: Catalogue, name: str, group: GroupFacts
) -> tuple[float, float]:
    """Return the lowest and the highest interactivity of a series' frontier in a group."""
    of = figures_of(store, catalogue, name, (group.isl, group.osl))
    knots = frontier_of_repeats([each.point for each in of])
    return knots[0].interactivity, knots[-1].interactivity
