"""What a store holds, in memory: runs, series and groups of one version of it."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache, cached_property

from upcurve.errors import InputError
from upcurve.records.browse import Measured, RunSummary, measured, run_summaries, store_version
from upcurve.records.reader import StoreReader
from upcurve.records.run import SeriesSummary

SLUG_LENGTH = 60


@cache
def group_id(model: str, isl: int, osl: int) -> str:
    """Return the id of a group: readable, and told apart by a hash of what it is made of."""
    slug = re.sub(r"[^a-z0-9.]+", "-", model.lower()).strip("-.")[:SLUG_LENGTH] or "model"
    digest = hashlib.sha256(f"{model}\0{isl}\0{osl}".encode()).hexdigest()[:6]
    return f"{slug}-{isl}-{osl}-{digest}"


@dataclass(slots=True)
class GroupFacts:
    """All series of one model and workload."""

    id: str
    model: str
    isl: int
    osl: int
    series: list[str] = field(default_factory=list)
    """Newest first."""
    hardware: set[str] = field(default_factory=set)
    precisions: set[str] = field(default_factory=set)
    points: int = 0
    last: datetime = datetime.min
    checked: int = 0
    """Points with an accuracy."""
    failed: int = 0
    runs: int = 0

    @property
    def state(self) -> Hashable:
        """What changes whenever something of the group does."""
        counts = self.points, self.checked, self.failed, self.runs
        return self.id, self.last, len(self.series), counts


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """One series."""

    summary: SeriesSummary
    engines: tuple[str, ...]
    """Engine and version."""
    precisions: tuple[str, ...]
    groups: tuple[str, ...]
    runs: tuple[RunSummary, ...]
    last: datetime | None
    checked: int
    """Points with an accuracy."""

    @property
    def state(self) -> Hashable:
        """What changes whenever something of the series does."""
        return self.summary.points, self.summary.runs, self.last, self.checked


class Catalogue:
    """One version of a store's content, in short."""

    def __init__(
        self, version: str, runs: Sequence[RunSummary], of_runs: Sequence[Measured]
    ) -> None:
        self.version = version
        self.runs = {run.id: run for run in runs}
        """Oldest first."""
        self.measured: dict[str, list[Measured]] = defaultdict(list)
        """By run."""
        for each in of_runs:
            self.measured[each.run].append(each)
        self.groups = self._grouped()
        by_series: dict[str, list[RunSummary]] = defaultdict(list)
        for run in runs:
            by_series[run.series].append(run)
        found = [self._series(name, of) for name, of in by_series.items()]
        found.sort(key=lambda each: (each.last is not None, each.last, each.summary.name))
        self.series = {each.summary.name: each for each in reversed(found)}
        """Newest first; those without points last."""
        for name, series in self.series.items():
            for group in series.groups:
                self.groups[group].series.append(name)

    @classmethod
    def read(cls, store: StoreReader, version: str | None = None) -> Catalogue:
        """Read a store; what comes while it is read belongs to the next version."""
        version = version or store_version(store)
        of_runs, _ = measured(store)
        return cls(version, run_summaries(store), of_runs)

    @cached_property
    def summaries(self) -> dict[str, SeriesSummary]:
        """Every series that has points, oldest first, as `StoreReader.series` gives them."""
        found = [each.summary for each in self.series.values() if each.summary.points]
        found.sort(key=lambda each: (each.first_measured_on or date.max, each.name))
        return {each.name: each for each in found}

    @property
    def points(self) -> int:
        """How many points there are."""
        return sum(group.points for group in self.groups.values())

    def group(self, name: str) -> GroupFacts:
        """Return a group.

        Raises:
            InputError: there is none of this id.
        """
        if name not in self.groups:
            mend = "take an id that meta or overview gives"
            raise InputError("group", f"there is none {name!r}", mend)
        return self.groups[name]

    def one(self, name: str) -> SeriesFacts:
        """Return a series.

        Raises:
            InputError: there is none of this name.
        """
        if name not in self.series:
            held = list(self.series)[:10]
            listed = ", ".join(held) + (", ..." if len(self.series) > len(held) else "")
            mend = f"it holds {listed}" if held else "it is empty: import or sweep first"
            raise InputError("series", f"{name!r} is not in the store", mend)
        return self.series[name]

    def _grouped(self) -> dict[str, GroupFacts]:
        groups: dict[str, GroupFacts] = {}
        for of in self.measured.values():
            for each in of:
                run = self.runs.get(each.run)
                if run is None:  # begun after the runs were read
                    continue
                key = group_id(run.model, each.isl, each.osl)
                group = groups.get(key)
                if group is None:
                    group = groups[key] = GroupFacts(key, run.model, each.isl, each.osl)
                    group.last = each.last
                group.hardware.add(run.hardware)
                group.precisions.add(run.precision)
                group.points += each.points
                group.runs += 1
                group.last = max(group.last, each.last)
                group.checked += each.checked
                group.failed += each.failed
        ordered = sorted(groups.values(), key=lambda each: (each.last, each.id), reverse=True)
        return {each.id: each for each in ordered}

    def _series(self, name: str, runs: Sequence[RunSummary]) -> SeriesFacts:
        own = [(run, each) for run in runs for each in self.measured.get(run.id, ())]
        first = min((each.first for _, each in own), default=None)
        last = max((each.last for _, each in own), default=None)
        summary = SeriesSummary(
            name=name,
            models=_distinct(run.model for run in runs),
            hardware=_distinct(run.hardware for run in runs),
            workloads=frozenset((each.isl, each.osl) for _, each in own),
            runs=len(runs),
            points=sum(each.points for _, each in own),
            fingerprints=frozenset(run.fingerprint for run in runs),
            first_measured_on=first and first.date(),
            last_measured_on=last and last.date(),
        )
        engines = (f"{run.engine} {run.engine_version}".strip() for run in runs)
        groups = (group_id(run.model, each.isl, each.osl) for run, each in own)
        return SeriesFacts(
            summary=summary,
            engines=_distinct(each for each in engines if each),
            precisions=_distinct(run.precision for run in runs if run.precision),
            groups=tuple(dict.fromkeys(groups)),
            runs=tuple(runs),
            last=last,
            checked=sum(each.checked for _, each in own),
        )


def _distinct(values: Iterator[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))
