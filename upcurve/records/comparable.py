"""Series of a store made ready for a comparison: their points, prices, and what sets them apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice

from upcurve.errors import InputError
from upcurve.frontier.bootstrap import MINIMUM_REPEATS
from upcurve.frontier.cost import Price, PriceTable
from upcurve.frontier.flags import Flag, mixed_fingerprints
from upcurve.frontier.pareto import frontier
from upcurve.frontier.point import Point
from upcurve.frontier.repeats import Repeats, split_repeats
from upcurve.frontier.uncertainty import NoiseFloor, noise_floor
from upcurve.records.reader import StoreReader
from upcurve.records.run import SeriesSummary


@dataclass(frozen=True, slots=True)
class ComparableSeries:
    """One series with its points of one workload."""

    summary: SeriesSummary
    workload: tuple[int, int]
    """(isl, osl) of the points."""
    fingerprints: frozenset[str]
    """Of the runs behind the points."""
    points: list[Point]
    """Those behind the frontier with their facts."""
    noise: NoiseFloor | None = None
    """Run-to-run noise of the same recipes, where no operating point has repeats enough."""

    def describe(self) -> str:
        """Return model, hardware, workload and day of the last measurement in words."""
        hardware = " and ".join(each or "unnamed hardware" for each in self.summary.hardware)
        return (
            f"{' and '.join(self.summary.models)} on {hardware}, "
            f"{self.workload[0]} in / {self.workload[1]} out, {self.summary.last_measured_on}"
        )


def comparable_series(
    store: StoreReader,
    names: Sequence[str] = (),
    *,
    isl: int | None = None,
    osl: int | None = None,
    known: Mapping[str, SeriesSummary] | None = None,
) -> list[ComparableSeries]:
    """Return the named series of a store, or all, each with its points of one workload.

    Args:
        store: where the series are kept.
        names: the series, in the order wanted; none means all, oldest first.
        isl: input length in tokens that chooses among several workloads.
        osl: output length in tokens, likewise.
        known: all series of the store, where the caller has them.

    Raises:
        InputError: the store is empty, it has no such series, or a series has no points of the
            workload or points of several.
    """
    if known is None:
        known = {summary.name: summary for summary in store.series()}
    known = {name: summary for name, summary in known.items() if summary.points}
    if not known:
        raise InputError(
            "store",
            "it holds no measured points",
            "bring some with upcurve import or upcurve bench",
        )
    for name in names:
        if name not in known:
            raise InputError("series", f"{name!r} is not in the store", f"it holds {_some(known)}")
    return [_choose(store, known[name], isl, osl) for name in dict.fromkeys(names or known)]


def _some(names: Iterable[str]) -> str:
    """Return names in a line that stays short in a store of thousands."""
    first = list(islice(names, 11))
    return ", ".join(first[:10]) + (", ..." if len(first) > 10 else "")


def _choose(
    store: StoreReader, summary: SeriesSummary, isl: int | None, osl: int | None
) -> ComparableSeries:
    measured = sorted(summary.workloads)
    chosen = [each for each in measured if isl in (None, each[0]) and osl in (None, each[1])]
    listed = ", ".join(f"--isl {a} --osl {b}" for a, b in chosen or measured)
    if not chosen:
        raise InputError(
            f"series {summary.name}", "no points of that --isl and --osl", f"it has {listed}"
        )
    if len(chosen) > 1:
        raise InputError(
            f"series {summary.name}", "it has several workloads", f"choose one of {listed}"
        )
    workload = chosen[0]
    points = store.points(summary.name, *workload)
    repeats = split_repeats(points)
    repeated = any(len(group) >= MINIMUM_REPEATS for group in repeats.measured)
    return ComparableSeries(
        summary,
        workload,
        store.fingerprints(summary.name, *workload),
        with_facts(store, points, repeats),
        None if repeated else noise_floor(store.repeated_figures(summary.name, *workload)),
    )


def with_facts(store: StoreReader, points: list[Point], repeats: Repeats) -> list[Point]:
    """Return the points, those behind the frontier with what a reader must know of them."""
    knots = {id(point) for point in frontier(repeats.operating_points)}
    groups = [
        [point.id for point in group if point.id is not None]
        for point, group in zip(repeats.operating_points, repeats.measured, strict=True)
        if id(point) in knots
    ]
    traced = [key for group in groups if len(group) >= MINIMUM_REPEATS for key in group]
    known = store.facts([key for group in groups for key in group], traced=traced)
    return [
        replace(point, facts=known[point.id]) if point.id in known else point for point in points
    ]


def series_flags(
    compared: Sequence[ComparableSeries], prices: Mapping[str, Price | None]
) -> dict[str, list[Flag]]:
    """Return what is to be known about whole series: mixed fingerprints, what a cost assumes."""
    found: dict[str, list[Flag]] = {}
    for each in compared:
        name = each.summary.name
        flags = found.setdefault(name, [])
        if len(each.fingerprints) > 1:
            flags.append(mixed_fingerprints(len(each.fingerprints)))
        price = prices.get(name)
        if price:
            flags.append(Flag("price_assumption", f"cost assumes {price.describe()}"))
    return found


def differences(compared: Sequence[ComparableSeries]) -> list[str]:
    """Return a warning for everything that sets the series apart beyond the change they measure."""
    models = {each.summary.name: " and ".join(each.summary.models) for each in compared}
    hardware = {each.summary.name: " and ".join(each.summary.hardware) for each in compared}
    workloads = {each.summary.name: "{} in / {} out".format(*each.workload) for each in compared}
    values = {"model": models, "hardware": hardware, "workload": workloads}
    return [
        *(
            f"the series differ in {what}: {_listed(by_series)}"
            for what, by_series in values.items()
            if len(set(by_series.values())) > 1
        ),
        *(
            f"{each.summary.name} joins runs of {' and '.join(mixed)} in one curve"
            for each in compared
            for mixed in (each.summary.models, each.summary.hardware)
            if len(mixed) > 1
        ),
        *(
            f"{each.summary.name} joins {len(each.fingerprints)} fingerprints in one curve: "
            "settings that can change its speed differ between its runs"
            for each in compared
            if len(each.fingerprints) > 1
        ),
    ]


def _listed(by_series: Mapping[str, str]) -> str:
    names: dict[str, list[str]] = {}
    for name, value in by_series.items():
        names.setdefault(value, []).append(name)
    return ", ".join(f"{value} ({', '.join(of)})" for value, of in names.items())


def series_prices(
    compared: Sequence[ComparableSeries],
    table: PriceTable,
    *,
    tier: str,
    on: date | None = None,
    given: Mapping[str, float] | None = None,
) -> tuple[dict[str, Price | None], list[str]]:
    """Return the price of each series' hardware by series name, and notes on what has none.

    Args:
        compared: the series.
        table: dated prices.
        tier: kind of provider, as in the table.
        on: date of the prices; None takes each series' own last measurement.
        given: hardware -> USD per GPU-hour, instead of the table's.

    Raises:
        InputError: a given price for hardware that no series ran on, a tier that the table does not
            have for the hardware, or `on` before its first price.
    """
    given = given or {}
    used = sorted({hardware for each in compared for hardware in each.summary.hardware})
    for unknown in given:
        if unknown not in used:
            raise InputError(
                "price", f"no compared series ran on {unknown!r}", f"they ran on {', '.join(used)}"
            )
    prices: dict[str, Price | None] = {}
    notes: list[str] = []
    for each in compared:
        name, hardware = each.summary.name, each.summary.hardware
        date_of_price = on or each.summary.last_measured_on
        prices[name] = None
        if len(hardware) != 1:
            notes.append(f"{name}: no cost, because its runs used {' and '.join(hardware)}")
        elif not hardware[0]:
            notes.append(f"{name}: no cost, because its hardware was not named")
        elif hardware[0] in given:
            prices[name] = Price(hardware[0], given[hardware[0]])
        elif hardware[0] not in table.hardware:
            notes.append(
                f"{name}: no cost, because {hardware[0]} has no price; "
                f"give --price {hardware[0]}=USD"
            )
        elif date_of_price is not None:
            try:
                prices[name] = table.lookup(hardware[0], tier, date_of_price)
            except InputError as error:
                if on is not None or error.field != "on":
                    raise
                notes.append(f"{name}: no cost, because {error.problem}; {error.mend}")
    return prices, notes
