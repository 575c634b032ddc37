"""A comparison's prices under other assumptions: other GPUs, own price, electricity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from upcurve.errors import InputError
from upcurve.frontier.build_values import watts
from upcurve.frontier.cost import Price, PriceTable
from upcurve.frontier.point import Place
from upcurve.records.comparable import ComparableSeries, series_prices
from upcurve.records.measurements import measurements
from upcurve.records.reader import StoreReader


@dataclass(frozen=True, slots=True)
class Electricity:
    """What power costs."""

    kw: Mapping[str, float]
    """Hardware -> power of one GPU with its share of the machine, in kW."""
    usd_per_kwh: float
    pue: float | None = None
    """Power of the building over that of the machines; None where kW is with the building."""

    def usd_per_gpu_hour(self, hardware: str) -> float:
        """Return what one GPU's power costs in one hour."""
        return self.kw[hardware] * (self.pue or 1) * self.usd_per_kwh

    def describe(self, hardware: str) -> str:
        """Return the assumption in words."""
        building = f"x PUE {self.pue:g} " if self.pue else "with the building, no PUE "
        return f"{self.kw[hardware]:g} kW {building}x ${self.usd_per_kwh:g} per kWh"


def electricity(
    kw: Mapping[str, float], usd_per_kwh: float | None, pue: float | None
) -> Electricity | None:
    """Return what power costs; None where nothing of it is given.

    Raises:
        InputError: power without its price, or the reverse.
    """
    if kw and usd_per_kwh is not None:
        return Electricity(kw, usd_per_kwh, pue)
    if kw:
        raise InputError("kw", "power has no price", "give --usd-per-kwh, e.g. 0.08")
    for field, value in (("usd-per-kwh", usd_per_kwh), ("pue", pue)):
        if value is not None:
            raise InputError(field, "no power is given", "give --kw, e.g. MI355X=2.09")
    return None


def what_if_prices(
    compared: Sequence[ComparableSeries],
    table: PriceTable,
    *,
    tier: str,
    on: date | None = None,
    given: Mapping[str, float] | None = None,
    as_hardware: Mapping[str, str] | None = None,
    electricity: Electricity | None = None,
) -> tuple[dict[str, Price | None], list[str]]:
    """Return prices by series name and notes, as `series_prices`, under further assumptions.

    Electricity takes the place of the table's price; on top of a given price it is added.

    Args:
        compared: the series.
        table: dated prices.
        tier: kind of provider, as in the table.
        on: date of the prices; None takes each series' own last measurement.
        given: hardware -> USD per GPU-hour, instead of the table's.
        as_hardware: series -> hardware to be priced as; throughput stays as measured.
        electricity: power and its price.

    Raises:
        InputError: a series that is not compared, power of hardware that none is priced as, or as
            `series_prices` does.
    """
    given, as_hardware = dict(given or {}), as_hardware or {}
    names = [each.summary.name for each in compared]
    for name in as_hardware:
        if name not in names:
            mend = f"compared are {', '.join(names)}"
            raise InputError("as-hardware", f"{name!r} is not compared", mend)
    priced = [
        replace(each, summary=replace(each.summary, hardware=(as_hardware[each.summary.name],)))
        if each.summary.name in as_hardware
        else each
        for each in compared
    ]
    bases: dict[str, str] = {}
    if electricity is not None:
        used = sorted({hardware for each in priced for hardware in each.summary.hardware})
        for hardware in electricity.kw:
            if hardware not in used:
                mend = f"they are priced as {', '.join(used)}"
                raise InputError("kw", f"no compared series is priced as {hardware!r}", mend)
            power = electricity.usd_per_gpu_hour(hardware)
            words = electricity.describe(hardware)
            bases[hardware] = f"electricity alone: {words}"
            if hardware in given:
                bases[hardware] = f"${given[hardware]:g} as given, and electricity: {words}"
            given[hardware] = given.get(hardware, 0.0) + power
    prices, notes = series_prices(priced, table, tier=tier, on=on, given=given)
    for name, price in prices.items():
        if price is not None and price.hardware in bases:
            prices[name] = replace(price, basis=bases[price.hardware])
    notes += [
        f"{each.summary.name} is priced as {as_hardware[each.summary.name]}; its throughput stays "
        f"as measured on {' and '.join(each.summary.hardware)}."
        for each in compared
        if each.summary.name in as_hardware
    ]
    return prices, notes


def recorded_watts(
    store: StoreReader, compared: Sequence[ComparableSeries]
) -> dict[str, dict[Place, float]]:
    """Return the recorded power per GPU of each series' operating points, in W."""
    workloads = {each.summary.name: each.workload for each in compared}
    own: dict[str, list[dict[str, Any]]] = {name: [] for name in workloads}
    for row in store.rows(list(workloads)):
        if (row["isl"], row["osl"]) == workloads[row["series"]]:
            own[row["series"]].append(row)
    return {name: watts(list(measurements(rows))) for name, rows in own.items()}
