"""A metric followed over the builds of histories, as `upcurve history` shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from upcurve.errors import InputError
from upcurve.frontier.build_values import (
    METRICS,
    Metric,
    Value,
    at_interactivities,
    at_operating_point,
    read_builds,
)
from upcurve.frontier.comparison import SeriesComparison
from upcurve.frontier.cost import Price
from upcurve.frontier.trend import Trend, direction, judge
from upcurve.records.build import differences
from upcurve.records.history import By, History, changes_between
from upcurve.records.published import prices as published_prices


@dataclass(frozen=True, slots=True)
class Following:
    """What is followed over builds."""

    metric: str = "tput"
    """A name of `upcurve.frontier.build_values.METRICS`."""
    targets: Sequence[float] | None = None
    """Interactivities in tok/s/user; or else `concurrency`."""
    concurrency: int | None = None
    price: float | None = None
    """USD per GPU-hour; None takes the table's."""
    tier: str = "hyperscaler"
    min_change: float = 0.01
    """Smallest relative change that counts."""

    def check(self) -> Metric:
        """Return the metric.

        Raises:
            InputError: the metric is unknown or not to be read there, or the price is none.
        """
        if self.metric not in METRICS:
            known = ", ".join(METRICS)
            raise InputError("metric", f"{self.metric!r} is unknown", f"give one of {known}")
        metric = METRICS[self.metric]
        if (self.targets is None) == (self.concurrency is None):
            raise InputError("at", "give one of at and concurrency", "e.g. at 40")
        if self.targets is not None and not metric.along_curve:
            mend = "give a concurrency, not at"
            raise InputError("metric", f"{self.metric} is of one point", mend)
        if self.price is not None and not 0 < self.price < float("inf"):
            raise InputError(
                "price", f"{self.price} is no price", "give USD per GPU-hour, e.g. 1.48"
            )
        return metric


@dataclass(frozen=True, slots=True)
class Followed:
    """One history at one interactivity or operating point."""

    history: History
    metric: Metric
    place: str
    """Where it was read, in words."""
    price: Price | None
    """Of all builds."""
    values: Sequence[Value]
    """One for each build."""
    trend: Trend

    def changes(self, index: int) -> list[str]:
        """Return the changes that came with a build."""
        pair = self.history.builds[index - 1 : index + 1]
        if index:
            return changes_between(self.history, *pair)
        return list(self.history.builds[0].changes)

    def differences(self, index: int) -> list[str]:
        """Return what else of a build differs from the one before it."""
        return differences(*self.history.builds[index - 1 : index + 1]) if index else []

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of this history."""
        history, steps = self.history, self.trend.steps
        found = steps.change_points if steps else ()
        strays = steps.strays if steps else ()
        return {
            "history": history.describe(),
            "name": history.name,
            "engine": history.engine,
            "model": history.model,
            "hardware": history.hardware,
            "precision": history.precision,
            "isl": history.workload[0],
            "osl": history.workload[1],
            "at": self.place,
            "price": self.price.describe() if self.price else None,
            "state": self.trend.state,
            "reason": self.trend.reason,
            "notes": list(self.trend.notes),
            "noise": steps.noise if steps else None,
            "builds": [
                {
                    "build": build.label,
                    "first_measured_at": build.first.isoformat(),
                    "series": list(build.series),
                    **value.to_dict(),
                    "stray": index in strays,
                    "changes": self.changes(index),
                    "differences": self.differences(index),
                }
                for index, (build, value) in enumerate(
                    zip(history.builds, self.values, strict=True)
                )
            ],
            "change_points": [
                {
                    "build": history.builds[each.index].label,
                    "after_build": history.builds[each.index - 1].label,
                    "direction": direction(self.metric, each.ratio),
                    "before": each.before,
                    "after": each.after,
                    "ratio": each.ratio,
                    "interval": list(each.interval),
                    "p_value": each.p_value,
                    "changes": self.changes(each.index),
                    "differences": self.differences(each.index),
                }
                for each in found
            ],
        }


Reads = list[tuple[SeriesComparison, ...]]
"""Of each history, its builds' frontiers at the targets."""


def read_histories(histories: Sequence[History], targets: Sequence[float]) -> Reads:
    """Read each history's builds at targets, once for all metrics that are followed there."""
    return [
        read_builds([build.measurements for build in each.builds], targets) for each in histories
    ]


def follow(
    histories: Sequence[History], what: Following, reads: Reads | None = None
) -> tuple[list[Followed], list[str]]:
    """Follow a metric over each history; also return notes on what has no price.

    Args:
        histories: of which metric.
        what: which, and where.
        reads: what `read_histories` gave for both, where several metrics are followed.

    Raises:
        InputError: as `Following.check`, or no history was measured at the concurrency.
    """
    metric = what.check()
    found: list[Followed] = []
    notes: list[str] = []
    for place_of_history, history in enumerate(histories):
        read = reads[place_of_history] if reads is not None else None
        price = None
        if metric.name == "usd_per_million":
            price = _price(history, what)
            if price is None:
                notes.append(f"no cost: {history.hardware} has no price; give --price")
        for place, values in _values(history, metric, what, price, read):
            trend = judge(values, metric, what.min_change)
            found.append(Followed(history, metric, place, price, values, trend))
    if not found:
        raise InputError("concurrency", f"none measured {what.concurrency}", "choose another")
    return found, notes


def to_dict(found: Sequence[Followed], what: Following, by: By) -> dict[str, Any]:
    """Return the object that `upcurve history --json` prints."""
    return {
        "metric": what.metric,
        "unit": METRICS[what.metric].unit,
        "by": by,
        "min_change": what.min_change,
        "histories": [each.to_dict() for each in found],
    }


def _price(history: History, what: Following) -> Price | None:
    """Return one price for all builds, of the newest one's day: cost moves with speed alone."""
    if what.price is not None:
        return Price(history.hardware, what.price)
    table = published_prices()
    if history.hardware not in table.hardware:
        return None
    return table.lookup(history.hardware, what.tier, history.builds[-1].last.date())


def _values(
    history: History,
    metric: Metric,
    what: Following,
    price: Price | None,
    read: Sequence[SeriesComparison] | None,
) -> Iterator[tuple[str, list[Value]]]:
    builds = [build.measurements for build in history.builds]
    usd = price.usd_per_gpu_hour if price else None
    targets = what.targets or []
    if targets:
        found = at_interactivities(builds, targets, metric, usd, read)
        for target, values in zip(targets, found, strict=True):
            yield f"{target:g} tok/s/user", values
    places = {each.point.place for build in builds for each in build}
    for place in sorted(places):
        if place.concurrency == what.concurrency:
            label = f"concurrency {place.concurrency}, {place.layout}"
            yield label, at_operating_point(builds, place, metric, usd)
