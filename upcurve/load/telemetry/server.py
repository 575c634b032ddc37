"""What a server's own metrics say about a span of time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow

from upcurve.load.telemetry.series import (
    EngineSeries,
    Labels,
    Reading,
    known_engine,
    without_copies,
)

SCHEMA = pyarrow.schema(
    [
        ("time_ns", pyarrow.int64()),
        ("name", pyarrow.string()),
        ("labels", pyarrow.string()),
        ("value", pyarrow.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Scrape:
    """All readings of one moment, in ns of `time.perf_counter_ns`."""

    time_ns: int
    readings: tuple[Reading, ...]

    def values(self, name: str) -> dict[Labels, float]:
        """Return the finite values of one series, by their labels."""
        return {
            each.labels: each.value
            for each in self.readings
            if each.name == name and math.isfinite(each.value)
        }


@dataclass(frozen=True, slots=True)
class ServerMetrics:
    """All scrapes of one server, in order of time."""

    scrapes: Sequence[Scrape]
    failures_ns: Sequence[int] = ()
    """When a scrape failed."""

    def table(self) -> pyarrow.Table:
        """Return every reading.

        Returns:
            Columns time_ns (ns of `time.perf_counter_ns`), name, labels ("k=v,k=v", sorted), value.
        """
        lines = [(scrape.time_ns, each) for scrape in self.scrapes for each in scrape.readings]
        columns = {
            "time_ns": [time_ns for time_ns, _ in lines],
            "name": [each.name for _, each in lines],
            "labels": [
                ",".join(f"{key}={value}" for key, value in each.labels) for _, each in lines
            ],
            "value": [each.value for _, each in lines],
        }
        return pyarrow.table(columns, schema=SCHEMA)

    @classmethod
    def from_table(cls, table: pyarrow.Table) -> ServerMetrics:
        """Return what `table` was made of; failures are not in it."""
        found: dict[int, list[Reading]] = {}
        for row in table.to_pylist():
            pairs = (each.partition("=") for each in row["labels"].split(",") if each)
            labels = tuple((name, value) for name, _, value in pairs)
            reading = Reading(row["name"], labels, row["value"])
            found.setdefault(row["time_ns"], []).append(reading)
        return cls(tuple(Scrape(at, tuple(found[at])) for at in sorted(found)))

    def requests(self) -> list[tuple[int, float | None, float | None]]:
        """Return (time in ns, requests running, requests waiting) of every scrape.

        None where the server does not say; empty for an engine that is not known.
        """
        known = known_engine(each.name for scrape in self.scrapes for each in scrape.readings)
        if known is None:
            return []
        return [
            (scrape.time_ns, _total(scrape, known.running), _total(scrape, known.waiting))
            for scrape in self.scrapes
        ]

    def summary(self, start_ns: int, end_ns: int) -> dict[str, Any]:
        """Return the well-known facts about a span of time.

        Gauges are averaged over the scrapes within the span; of several data-parallel parts,
        requests are added up and KV cache usage is averaged. Counters are compared between the
        scrapes that bracket the span, and rates are per second between these two.

        Args:
            start_ns: Begin of the span, in ns of `time.perf_counter_ns`.
            end_ns: Its end.

        Returns:
            engine, scrapes, failed_scrapes (both within the span), running, waiting,
            kv_cache_usage (each {mean, max}), prompt_tokens_per_s, generation_tokens_per_s,
            preemptions, notes; None where the server has no such series or the span no scrape.
        """
        within = [each for each in self.scrapes if start_ns <= each.time_ns <= end_ns]
        summary: dict[str, Any] = {
            "engine": None,
            "scrapes": len(within),
            "failed_scrapes": sum(start_ns <= each <= end_ns for each in self.failures_ns),
            "running": None,
            "waiting": None,
            "kv_cache_usage": None,
            "prompt_tokens_per_s": None,
            "generation_tokens_per_s": None,
            "preemptions": None,
            "notes": [],
        }
        known = known_engine(each.name for scrape in self.scrapes for each in scrape.readings)
        if known is None:
            return summary
        notes: list[str] = [known.note] if known.note else []
        summary |= {"engine": known.engine, "notes": notes}
        summary["running"] = _gauge(within, lambda scrape: _total(scrape, known.running))
        summary["waiting"] = _gauge(within, lambda scrape: _total(scrape, known.waiting))
        summary["kv_cache_usage"] = _gauge(within, lambda scrape: _kv_cache_usage(scrape, known))
        bracket = self._bracket(start_ns, end_ns, notes)
        for name, series in (
            ("prompt_tokens_per_s", known.prompt_tokens),
            ("generation_tokens_per_s", known.generation_tokens),
            ("preemptions", known.preemptions),
        ):
            increase = _increase(bracket, series, notes)
            if increase is not None and name.endswith("_per_s"):
                increase /= (bracket[-1].time_ns - bracket[0].time_ns) / 1e9
            summary[name] = increase
        return summary

    def _bracket(self, start_ns: int, end_ns: int, notes: list[str]) -> list[Scrape]:
        """Return the scrapes from the last before the span to the first after it."""
        before = [at for at, each in enumerate(self.scrapes) if each.time_ns <= start_ns]
        after = [at for at, each in enumerate(self.scrapes) if each.time_ns >= end_ns]
        if not (before and after):
            notes.append("counters cover a part of the span: no scrape before or after it")
        first = before[-1] if before else 0
        last = after[0] if after else len(self.scrapes) - 1
        return list(self.scrapes[first : last + 1])


def _total(scrape: Scrape, names: Iterable[str]) -> float | None:
    values = _first(scrape, names)
    return sum(without_copies(values)) if values else None


def _kv_cache_usage(scrape: Scrape, known: EngineSeries) -> float | None:
    if known.kv_cache_used_of is not None:
        used, total = (_total(scrape, [name]) for name in known.kv_cache_used_of)
        return used / total if used is not None and total else None
    shares = without_copies(_first(scrape, known.kv_cache_usage))
    return sum(shares) / len(shares) if shares else None


def _first(scrape: Scrape, names: Iterable[str]) -> dict[Labels, float]:
    return next((values for name in names if (values := scrape.values(name))), {})


def _gauge(
    scrapes: list[Scrape], read: Callable[[Scrape], float | None]
) -> dict[str, float] | None:
    values = [value for each in scrapes if (value := read(each)) is not None]
    return {"mean": sum(values) / len(values), "max": max(values)} if values else None


def _increase(bracket: list[Scrape], names: Sequence[str], notes: list[str]) -> float | None:
    """Return how far a counter went up; None where it is absent or began anew.

    A counter that appears later counts from zero: many are not told before they first move.
    """
    values = [_first(scrape, names) for scrape in bracket]
    if len(values) < 2 or not any(values):
        return None
    for earlier, later in pairwise(values):
        if any(labels not in later or later[labels] < earlier[labels] for labels in earlier):
            notes.append(f"{names[0]} began anew within the span")
            return None
    return sum(without_copies(values[-1])) - sum(without_copies(values[0]))
