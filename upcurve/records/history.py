"""Histories: the builds of one kind of measurement in order, and the changes between them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from upcurve.errors import InputError
from upcurve.records import published
from upcurve.records.build import Build, build_key, build_of, labelled
from upcurve.records.reader import StoreReader
from upcurve.records.rows import read_rows

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
    store: StoreReader | None,
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
        build = row["measured_on"].date() if by == "date" else build_key(row)
        groups[name, *of][build].append(row)
    if not groups:
        raise InputError("series", "no measured points", "sweep or import some, or choose others")
    found = []
    for (name, engine, model, hardware, precision, *workload), builds in sorted(groups.items()):
        made = (build_of(key, of) for key, of in builds.items())
        ordered = tuple(labelled(sorted(made, key=lambda each: each.first)))
        lengths = workload[0], workload[1]
        found.append(History(name, engine, model, hardware, precision, lengths, ordered))
    return found


def _rows(store: StoreReader | None, patterns: Sequence[str]) -> Iterator[dict[str, Any]]:
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
