"""Builds of a group in order, from its catalogue alone: what came before a series, and with it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from upcurve.dashboard.catalogue import Catalogue, GroupFacts
from upcurve.dashboard.contract.common import Link
from upcurve.records.browse import Measured, RunSummary
from upcurve.records.build import Build, build_label, labelled
from upcurve.records.history import History, changes_between, stem

_PULL = re.compile(r"https?://github\.com/[\w.-]+/([\w.-]+)/pull/(\d+)")
_URL = re.compile(r"https?://\S+")


@dataclass(frozen=True, slots=True)
class Lineage:
    """One history without its measurements: builds oldest first, and the runs of each."""

    history: History
    runs: tuple[tuple[str, ...], ...]

    def changes(self, index: int) -> list[Link]:
        """Return the changes that came with a build."""
        builds = self.history.builds
        if index:
            found = changes_between(self.history, builds[index - 1], builds[index])
        else:
            found = list(builds[0].changes)
        return [link(each) for each in found]


def lineages(catalogue: Catalogue, group: GroupFacts) -> list[Lineage]:
    """Return the histories of a group, as `upcurve.records.history.histories` groups runs."""
    members: dict[Any, dict[Any, list[tuple[RunSummary, Measured]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for name in group.series:
        for run in catalogue.series[name].runs:
            if run.model != group.model:
                continue
            for each in catalogue.measured.get(run.id, ()):
                if (each.isl, each.osl) == (group.isl, group.osl):
                    kind = stem(run.series), run.engine, run.hardware, run.precision
                    build = run.engine_version, run.engine_commit, run.image, run.engine_source
                    members[kind][build].append((run, each))
    found = []
    for (name, engine, hardware, precision), builds in members.items():
        ordered = sorted(builds.items(), key=lambda item: min(m.first for _, m in item[1]))
        history = History(
            name,
            engine,
            group.model,
            hardware,
            precision,
            (group.isl, group.osl),
            tuple(labelled([_build(key, of) for key, of in ordered])),
        )
        runs = tuple(tuple(run.id for run, _ in of) for _, of in ordered)
        found.append(Lineage(history, runs))
    return found


def _build(key: tuple[str, ...], of: Sequence[tuple[RunSummary, Measured]]) -> Build:
    return Build(
        label=build_label(key),
        first=min(each.first for _, each in of),
        last=max(each.last for _, each in of),
        series=tuple(dict.fromkeys(run.series for run, _ in of)),
        measurements=(),
        changes=tuple(dict.fromkeys(run.change for run, _ in of if run.change)),
        facts={},
        imported=all(run.source == "import" for run, _ in of),
    )


def link(text: str) -> Link:
    """Return a change in words with its link; only http and https become links.

    A pull request of GitHub is called `repository#number`, what follows it stays.
    """
    pull, url = _PULL.match(text), _URL.match(text)
    if pull:
        return Link(text=f"{pull[1]}#{pull[2]}{text[pull.end() :]}", url=pull[0])
    return Link(text=text, url=url[0] if url else None)
