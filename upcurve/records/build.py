"""Builds: all that was measured of one build of an engine, and what sets two of them apart."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

from upcurve.frontier.build_values import Measurement
from upcurve.records.layout import LAYOUT
from upcurve.records.measurements import measurements


@dataclass(frozen=True, slots=True)
class Build:
    """All that was measured of one build of an engine, or on one day."""

    label: str
    first: datetime
    """When its first point was measured."""
    last: datetime
    series: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    changes: tuple[str, ...]
    """Links to the changes that its runs say they measure."""
    facts: Mapping[str, frozenset[str]] = field(repr=False)
    """What can change speed -> the values that its runs had: version, image, flags, driver, ..."""
    imported: bool


def build_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what tells the build of a flat row apart, as `build_label` names it."""
    source = (row["software"] or {}).get("upcurve_engine_source", "")
    return row["engine_version"], row["engine_commit"], row["image"], str(source)


def build_of(key: tuple[str, ...] | date, rows: Sequence[Mapping[str, Any]]) -> Build:
    """Return the build that flat rows (`StoreReader.rows`) were measured of.

    Args:
        key: of all rows: as `build_key` gives it, or their day.
        rows: at least one.
    """
    facts: dict[str, set[str]] = defaultdict(set)
    runs: set[int | str] = set()
    for row in rows:
        run = row.get("run", id(row["recipe"]))
        if run not in runs:
            runs.add(run)
            for name, value in _facts(row):
                facts[name].add(value)
        for name in LAYOUT:
            if row[name] is not None:
                facts[name].add(str(row[name]))
    return Build(
        label=build_label(key),
        first=min(row["measured_on"] for row in rows),
        last=max(row["measured_on"] for row in rows),
        series=tuple(dict.fromkeys(row["series"] for row in rows)),
        measurements=tuple(measurements(rows)),
        changes=tuple(dict.fromkeys(row["change"] for row in rows if row["change"])),
        facts={name: frozenset(values) for name, values in facts.items()},
        imported=all(row["source"] == "import" for row in rows),
    )


def build_label(key: tuple[str, ...] | date) -> str:
    """Name a build: (version, commit, image, source of the own engine), or a day."""
    if isinstance(key, date):
        return key.isoformat()
    version, commit, image, source = key
    parts = [version, commit[:9], "" if version or commit else image.rpartition(":")[2] or image]
    return " ".join(part for part in parts if part) or source[:9] or "(no version)"


def labelled(builds: Sequence[Build]) -> Iterator[Build]:
    """Give builds of equal labels their days, and a number where that is not enough."""
    taken: set[str] = set()
    labels = [build.label for build in builds]
    for build in builds:
        label = build.label
        if labels.count(label) > 1:
            label = f"{label} {build.first.date()}"
        number, free = 1, label
        while free in taken:
            number += 1
            free = f"{label} #{number}"
        taken.add(free)
        yield replace(build, label=free)


def differences(before: Build, after: Build) -> list[str]:
    """Return what of engine, flags, variables, software and machine differs, in words."""
    lines = []
    for name in sorted(before.facts.keys() | after.facts.keys()):
        old, new = (build.facts.get(name, frozenset()) for build in (before, after))
        if old != new:
            lines.append(f"{name}: {_listed(old)} -> {_listed(new)}")
    return lines


def _listed(values: frozenset[str]) -> str:
    return " and ".join(sorted(values)) or "none"


def _facts(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what of a run can change its figures, as names and texts."""
    for name in ("engine_version", "engine_commit", "image", "harness_version", "source"):
        if row[name]:
            yield name.replace("_", " "), str(row[name])
    recipe = row["recipe"] or {}
    engine = recipe.get("engine") or {}
    yield from _flags(engine.get("command") or [])
    for name, value in (engine.get("env") or {}).items():
        yield f"variable {name}", str(value)
    for name, value in (recipe.get("workload") or {}).items():
        yield f"workload {name}", str(value)
    software = dict(row["software"] or {})
    for name, value in (software.pop("environment", None) or {}).items():
        yield f"variable {name}", str(value)
    for driver in software.pop("drivers", None) or []:
        yield "driver", str(driver)
    for name, value in software.items():
        yield name, str(value)
    for device in row["devices"] or []:
        if device.get("name"):
            yield "GPU", str(device["name"])
        if device.get("driver"):
            yield "driver", f"{device.get('vendor', '')} {device['driver']}".strip()
    for name in ("name", "cpu", "operating_system", "kernel"):
        if (row["host"] or {}).get(name):
            yield f"host {name.replace('_', ' ')}", str(row["host"][name])


def _flags(command: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each flag of a command line with its values, and what comes before the first."""
    flag, values = "command", list[str]()
    for word in command:
        if word.startswith("-") and not re.fullmatch(r"-[\d.]+", word):
            if values or flag != "command":
                yield flag, " ".join(values) or "given"
            name, equals, value = word.partition("=")
            flag, values = f"flag {name}", [value] if equals else []
        else:
            values.append(word)
    if command:
        yield flag, " ".join(values) or "given"
