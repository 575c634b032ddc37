"""Histories: the builds of one kind of measurement in order, and what sets them apart."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from fnmatch import fnmatchcase
from typing import Any, Literal

from upcurve.errors import InputError
from upcurve.frontier.build_values import Measurement
from upcurve.frontier.point import Point
from upcurve.records import published
from upcurve.records.facts import facts
from upcurve.records.rows import read_rows
from upcurve.records.store import Store

By = Literal["build", "date"]
PUBLISHED = "published:"
PUBLISHED_CHANGES_OF = ("sglang", "Qwen3.5-397B-A17B", "MI355X")
"""Engine, model and hardware of the imported runs that `published.changes` lie between."""

_MONTH = (
    "jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?"
    "|oct(ober)?|nov(ember)?|dec(ember)?"
)
_TIME_OR_VERSION = re.compile(
    rf"[-_.@ ]?\b(v?\d+\.\d[\w.]*|\d{{4}}[-_]?\d{{2}}[-_]?\d{{2}}|({_MONTH})([-_]?\d{{4}})?"
    r"|(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,40})$",
    re.IGNORECASE,
)


def stem(series: str) -> str:
    """Return a series name without the version, date, month or commit at its end.

    `vllm-0.26.0` is `vllm`, `nightly-2026-05-19` is `nightly`, `feb` is the empty string.
    """
    shorter = _TIME_OR_VERSION.sub("", series)
    return shorter if shorter == series else stem(shorter)


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


@dataclass(frozen=True, slots=True)
class History:
    """The builds of one kind of measurement, oldest first."""

    name: str
    """Stem of the series; the empty string where a series was called by its date alone."""
    engine: str
    model: str
    hardware: str
    precision: str
    workload: tuple[int, int]
    """(isl, osl)."""
    builds: tuple[Build, ...]

    def describe(self) -> str:
        """Return in words whose history it is."""
        parts = (self.name or self.engine, self.model, f"on {self.hardware}", self.precision)
        isl, osl = self.workload
        return " ".join(part for part in parts if part) + f", {isl} in / {osl} out"


def histories(
    store: Store | None,
    patterns: Sequence[str],
    *,
    by: By = "build",
    joined: bool = False,
    isl: int | None = None,
    osl: int | None = None,
) -> list[History]:
    """Return the histories of a store and of published sets.

    Runs are of one history where the stem of the series, the engine, model, hardware, precision
    and workload are equal; of one build where version, commit, image and the own engine's source
    are. Parallelism and concurrency are what a build's curve is made of.

    Args:
        store: where runs are kept; None where only published sets are named.
        patterns: names of series, with `*` and `?`, or `published:NAME`; none means all.
        by: whether runs are told apart by build or by the day (UTC) of their points.
        joined: whether names do not matter: histories differ in the rest alone.
        isl: input length in tokens to choose.
        osl: output length in tokens to choose.

    Raises:
        InputError: a pattern fits nothing, a published set is not known, or nothing is left.
    """
    groups: dict[Any, dict[Any, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in _rows(store, patterns):
        if isl not in (None, row["isl"]) or osl not in (None, row["osl"]):
            continue
        name = "" if joined else stem(row["series"])
        of = tuple(row[key] for key in ("engine", "model", "hardware", "precision", "isl", "osl"))
        build = row["measured_on"].date() if by == "date" else _build(row)
        groups[name, *of][build].append(row)
    if not groups:
        raise InputError("series", "no measured points", "sweep or import some, or choose others")
    found = []
    for (name, engine, model, hardware, precision, *workload), builds in sorted(groups.items()):
        made = (_make(key, of) for key, of in builds.items())
        ordered = tuple(labelled(sorted(made, key=lambda each: each.first)))
        lengths = workload[0], workload[1]
        found.append(History(name, engine, model, hardware, precision, lengths, ordered))
    return found


def _rows(store: Store | None, patterns: Sequence[str]) -> Iterator[dict[str, Any]]:
    names = [each for each in patterns if not each.startswith(PUBLISHED)]
    for each in patterns:
        if each.startswith(PUBLISHED):
            for group in read_rows(each, {}).groups:
                of_run = asdict(group.run)
                of_run["devices"] = of_run.pop("gpus")
                for point in group.points:
                    yield of_run | asdict(point) | {"measured_on": point.measured_at}
    if store is None or (patterns and not names):
        return
    known = [each.name for each in store.series() if each.points]
    chosen = [each for each in known if any(fnmatchcase(each, name) for name in names or ["*"])]
    for name in names:
        if not any(fnmatchcase(each, name) for each in known):
            listed = ", ".join(known[:10]) or "nothing"
            raise InputError("series", f"{name!r} fits none in the store", f"it holds {listed}")
    if chosen:
        yield from store.rows(chosen)


def _build(row: Mapping[str, Any]) -> tuple[str, ...]:
    source = (row["software"] or {}).get("upcurve_engine_source", "")
    return row["engine_version"], row["engine_commit"], row["image"], str(source)


def _make(key: tuple[str, ...] | date, rows: Sequence[Mapping[str, Any]]) -> Build:
    facts: dict[str, set[str]] = defaultdict(set)
    runs: set[int | str] = set()
    for row in rows:
        run = row.get("run", id(row["recipe"]))
        if run not in runs:
            runs.add(run)
            for name, value in _facts(row):
                facts[name].add(value)
        for name in ("tp", "gpus"):
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


def measurements(rows: Iterable[Mapping[str, Any]]) -> Iterator[Measurement]:
    """Yield the measurements of flat rows (`Store.rows`), in the order of time.

    Repeats are numbered over all runs of one fingerprint, as `Store.points` does.
    """
    taken: dict[Any, set[int]] = defaultdict(set)
    for row in sorted(rows, key=lambda each: each["measured_on"]):
        where = row["tp"], row["gpus"], row["concurrency"]
        used = taken[*where, row["fingerprint"]]
        repeat = max(used) + 1 if row["repeat"] in used else row["repeat"]
        used.add(repeat)
        known = facts(row["requests"], row["failed"], row["result"], row["accuracy"])
        point = Point(row["interactivity"], row["tput_per_gpu"], *where, repeat, facts=known)
        power = watts_per_gpu(row)
        yield Measurement(point, row["ttft_ms"], row["tpot_ms"], power, row["fingerprint"])


def watts_per_gpu(row: Mapping[str, Any]) -> float | None:
    """Return the mean power of one GPU that a point was recorded with, in W.

    Energy of all watched GPUs for one output token, times output tokens per second and GPU; None
    where no power was recorded, where its two sources disagree, or without output throughput.
    """
    power = (row["result"] or {}).get("power") or {}
    totals = power.get("totals") or {}
    joules, output = totals.get("joules_per_output_token"), row["output_tput_per_gpu"]
    if not (joules and output and totals.get("energy_valid")):
        return None
    return float(joules * output)


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


def changes_between(history: History, before: Build, after: Build) -> list[str]:
    """Return the changes that came with a build: those it names, and published ones by date."""
    found = list(after.changes)
    if (history.engine, history.model, history.hardware) == PUBLISHED_CHANGES_OF and after.imported:
        found += [
            f"https://github.com/sgl-project/sglang/pull/{each.change.partition('#')[2]} "
            f"(merged {each.merged_on}): {each.title}"
            for each in published.changes()
            if before.last.date() < each.merged_on <= after.first.date()
        ]
    return found
