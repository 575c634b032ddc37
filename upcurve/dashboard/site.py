"""The dashboard as static files: the page, and its answers as scripts that open from file://."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import orjson
from pydantic import BaseModel

from upcurve.dashboard.answers import about, chart, limit, overview, tables
from upcurve.dashboard.answers.accuracy import accuracy
from upcurve.dashboard.answers.attribution import attribution
from upcurve.dashboard.answers.requests import timeline
from upcurve.dashboard.answers.runs import run_detail, run_list
from upcurve.dashboard.answers.selection import curve_span
from upcurve.dashboard.catalogue import Catalogue, GroupFacts
from upcurve.dashboard.contract import questions as asked
from upcurve.dashboard.page import Page
from upcurve.dashboard.reader import NotFoundError, Reader
from upcurve.errors import InputError
from upcurve.frontier.build_values import METRICS
from upcurve.records.published import specifications
from upcurve.records.trends import Following, read_histories

RUNS_PER_FILE = 100
LOG_BYTES = 16 * 2**10
MOST_TARGETS = 12
EVERY_BASELINE = 8
"""Series of a group up to which ratios over each are exported; else over the oldest."""
MOST_TIMELINES = 200
MOST_OVERVIEW = 500
TIERS = (20.0, 40.0, 60.0)
MARK = 'data-mode="live"'


@dataclass(frozen=True, slots=True)
class Written:
    """What an export wrote."""

    files: int
    bytes: int
    groups: int
    timelines: int


def export_site(
    reader: Reader, folder: Path, progress: Callable[[str], None] = lambda _: None
) -> Written:
    """Write the dashboard of a store as static files; the folder is replaced whole or not at all.

    Args:
        reader: the store.
        folder: where to; new, empty or an earlier export.
        progress: is told what is being written.

    Raises:
        InputError: the folder holds something else or cannot be written, or the store is empty.
    """
    if folder.exists() and not (folder.is_dir() and _is_ours(folder)):
        mend = "name a new folder, an empty one or an earlier export"
        raise InputError("site", f"{folder} holds something else", mend)
    catalogue = reader.catalogue()
    if not catalogue.groups:
        mend = "bring some with upcurve import or upcurve sweep"
        raise InputError("store", "it holds no measured points", mend)
    fresh = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    try:
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
        fresh.mkdir(parents=True)
        written = _Site(reader, catalogue, fresh, progress).write()
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        words = error.strerror or str(error)
        raise InputError("site", f"{folder}: {words}", "name a folder you can write") from error
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return written


def _is_ours(folder: Path) -> bool:
    return not any(folder.iterdir()) or (folder / "data" / "site.js").is_file()


class _Site:
    """One export under way."""

    def __init__(
        self, reader: Reader, catalogue: Catalogue, folder: Path, progress: Callable[[str], None]
    ) -> None:
        self._reader = reader
        self._catalogue = catalogue
        self._folder = folder
        self._progress = progress
        self._files = 0
        self._bytes = 0
        self._frontier: dict[str, dict[str, None]] = {}
        self._metrics: dict[str, None] = {}

    def write(self) -> Written:
        """Write all files."""
        self._page()
        catalogue, reader = self._catalogue, self._reader
        self._answer("meta", about.meta(reader, writes=False, live=False))
        every = list(catalogue.series.values())
        self._answer("series", about.series_list(every, about.facets(catalogue), total=len(every)))
        self._answer("hardware", about.hardware(asked.HardwareQuestion()))
        self._answer("attribution", attribution(reader, asked.AttributionQuestion()))
        shown = asked.OverviewQuestion.model_construct(limit=MOST_OVERVIEW)
        self._answer("overview", overview.overview(reader, shown))
        grids: dict[str, list[float]] = {}
        baselines: dict[str, list[str]] = {}
        groups = list(catalogue.groups.values())
        for number, group in enumerate(groups, start=1):
            self._progress(f"{number} of {len(groups)}: {group.model}, {group.isl}/{group.osl}")
            grids[group.id] = self._grid(group)
            baselines[group.id] = self._compare(group, grids[group.id])
            self._charts(group)
            self._history(group, grids[group.id])
            question = asked.AccuracyQuestion(group=group.id)
            self._answer(f"accuracy/{group.id}", accuracy(reader, question))
        timelines = self._runs()
        self._answer(
            "site",
            {
                "grid": grids,
                "baselines": baselines,
                "frontier": {x: list(y) for x, y in self._frontier.items()},
                "metrics": list(self._metrics),
                "runs_per_file": RUNS_PER_FILE,
                "timelines": timelines,
            },
        )
        return Written(self._files, self._bytes, len(groups), len(timelines))

    def _page(self) -> None:
        page = Page()
        for name in page.names():
            content = page.file(name) or b""
            if name == "index.html":
                content = content.replace(MARK.encode(), b'data-mode="static"')
            self._file(self._folder / name, content)

    def _grid(self, group: GroupFacts) -> list[float]:
        """Return the targets of a group: multiples of a round step, and the usual tiers."""
        spans = [curve_span(self._reader.store, self._catalogue, n, group) for n in group.series]
        low, high = min(start for start, _ in spans), max(end for _, end in spans)
        exponent = math.floor(math.log10(high))
        steps = (m * 10.0**e for e in range(exponent - 2, exponent + 2) for m in (1, 2, 5))
        step = next(each for each in steps if (high - low) / each <= MOST_TARGETS)
        first, last = math.ceil(low / step), math.floor(high / step)
        multiples = [round(index * step, 9) for index in range(first, last + 1)]
        usual = [each for each in TIERS if low <= each <= high]
        return sorted({*multiples, *usual}) or [low]

    def _compare(self, group: GroupFacts, grid: list[float]) -> list[str]:
        names = group.series[: tables.MOST_COMPARED][::-1]  # the newest, oldest first
        baselines = names if len(names) <= EVERY_BASELINE else names[:1]
        at = [",".join(f"{target:g}" for target in grid)]
        for place, baseline in enumerate(baselines):
            question = asked.CompareQuestion(
                series=names, isl=group.isl, osl=group.osl, baseline=baseline, at=at
            )
            found = tables.compare(self._reader, question)
            self._answer(f"compare/{group.id}/{place}", found)
        return baselines

    def _charts(self, group: GroupFacts) -> None:
        for x in get_args(asked.XName):
            for y in get_args(asked.YName):
                question = asked.FrontierQuestion(group=group.id, x=x, y=y, dominated=True)
                found = chart.frontier(self._reader, question)
                if any(each.frontier for each in found.series):
                    self._frontier.setdefault(x, {})[y] = None
                    self._answer(f"frontier/{group.id}/{x}.{y}", found)
        for hardware in sorted(group.hardware & specifications().keys()):
            for x in get_args(asked.XName):
                for y in get_args(asked.YName):
                    line = asked.LimitQuestion(group=group.id, hardware=hardware, x=x, y=y)
                    found_line = limit.limit(self._reader, line)
                    self._answer(f"limit/{group.id}/{hardware}.{x}.{y}", found_line)

    def _history(self, group: GroupFacts, grid: list[float]) -> None:
        found = tables.chosen_histories(self._reader, asked.HistoryQuestion(group=group.id))
        shown, rest = found[: tables.MOST_HISTORIES], found[tables.MOST_HISTORIES :]
        reads = read_histories(shown, grid)
        for metric in (each.name for each in METRICS.values() if each.along_curve):
            told = tables.followed(shown, Following(metric, grid), "build", rest, reads)
            values = (build.value for each in told.history.histories for build in each.builds)
            if any(value is not None for value in values):
                self._metrics[metric] = None
                self._answer(f"history/{group.id}/{metric}", told)

    def _runs(self) -> list[int]:
        """Write every run, and the requests of the newest points; return these points' ids."""
        every = list(reversed(self._catalogue.runs.values()))
        self._answer("runs", run_list(self._catalogue, every, total=len(every)))
        question = asked.RunQuestion(log_bytes=LOG_BYTES)
        points: list[int] = []
        for place in range(0, len(every), RUNS_PER_FILE):
            self._progress(f"runs {place + 1} and on of {len(every)}")
            chunk = every[place : place + RUNS_PER_FILE]
            details = {run.id: run_detail(self._reader, run.id, question) for run in chunk}
            for each in details.values():
                points += [point.id for point in each.points if point.timeline]
            plain = {name: each.model_dump(mode="json") for name, each in details.items()}
            self._answer(f"runs/{place // RUNS_PER_FILE}", plain)
        return list(self._timelines(points[:MOST_TIMELINES]))

    def _timelines(self, points: list[int]) -> Iterator[int]:
        for point in points:
            try:
                found = timeline(self._reader, point, asked.TimelineQuestion())
            except NotFoundError:
                continue
            self._answer(f"timeline/{point}", found)
            yield point

    def _answer(self, name: str, answer: BaseModel | dict[str, Any]) -> None:
        value = answer.model_dump(mode="json") if isinstance(answer, BaseModel) else answer
        call = b"upcurveAnswer(%s,%s);\n" % (orjson.dumps(name), orjson.dumps(value))
        self._file(self._folder / "data" / f"{name}.js", call)

    def _file(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._files += 1
        self._bytes += len(content)
