"""What there is: meta, series, hardware."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import PurePath

from upcurve import __version__
from upcurve.dashboard.answers.axes import X_AXES, Y_AXES
from upcurve.dashboard.catalogue import Catalogue, GroupFacts, SeriesFacts
from upcurve.dashboard.contract.common import Group, Preset
from upcurve.dashboard.contract.meta import (
    Counts,
    Facets,
    Hardware,
    Meta,
    Metric,
    PriceRow,
    SeriesItem,
    SeriesList,
    Specification,
)
from upcurve.dashboard.contract.questions import HardwareQuestion, SeriesQuestion
from upcurve.dashboard.reader import Reader
from upcurve.frontier.build_values import METRICS
from upcurve.frontier.interpolation import RULES
from upcurve.records.published import prices, specifications

MOST_GROUPS = 500

PUBLISHED_SERIES = ("feb", "apr", "may")
PUBLISHED = Preset(
    name="mi355x-qwen35",
    title="Qwen3.5 397B on MI355X, February to May 2026",
    query="view=compare&series=feb&series=apr&series=may&baseline=feb&at=20,30,40,50,60"
    "&isl=8192&osl=1024",
)
PUBLISHED_MODEL = "Qwen3.5-397B-A17B"


def meta(reader: Reader, *, writes: bool, live: bool = True) -> Meta:
    """Answer `meta`."""
    catalogue = reader.catalogue()
    groups = list(catalogue.groups.values())
    return Meta(
        api=1,
        version=__version__,
        # An export goes to readers whom the place on this machine is nothing to.
        store=reader.store.name if live else PurePath(reader.store.name).name,
        store_version=catalogue.version,
        live=live,
        writes=writes,
        exported_at=None if live else datetime.now(UTC).isoformat(timespec="seconds"),
        counts=Counts(
            series=len(catalogue.series), runs=len(catalogue.runs), points=catalogue.points
        ),
        groups=[group_of(each) for each in groups[:MOST_GROUPS]],
        groups_left_off=max(0, len(groups) - MOST_GROUPS),
        x_axes=list(X_AXES.values()),
        y_axes=list(Y_AXES.values()),
        metrics=[
            Metric(
                name=each.name,
                unit=each.unit,
                higher_is_better=each.higher_is_better,
                along_curve=each.along_curve,
            )
            for each in METRICS.values()
        ],
        rules=list(RULES),
        tiers=list(dict.fromkeys(each.tier for each in prices().prices if each.tier)),
        presets=[PUBLISHED] if _has_published(catalogue) else [],
    )


def _has_published(catalogue: Catalogue) -> bool:
    found = [catalogue.series.get(name) for name in PUBLISHED_SERIES]
    return all(each and each.summary.models == (PUBLISHED_MODEL,) for each in found)


def group_of(facts: GroupFacts) -> Group:
    """Return a group as answers show it."""
    return Group(
        id=facts.id,
        model=facts.model,
        isl=facts.isl,
        osl=facts.osl,
        hardware=sorted(facts.hardware),
        precisions=sorted(each for each in facts.precisions if each),
        series=len(facts.series),
        points=facts.points,
        last_measured_on=facts.last.date().isoformat(),
    )


def series(reader: Reader, question: SeriesQuestion) -> SeriesList:
    """Answer `series`."""
    catalogue = reader.catalogue()
    names: Iterable[str] = catalogue.series
    if question.group is not None:
        names = catalogue.group(question.group).series
    found = [each for name in names if _fits(each := catalogue.series[name], question)]
    shown = found[question.offset : question.offset + question.limit]
    of_all = reader.remembered(("facets", catalogue.version), lambda: facets(catalogue))
    return series_list(shown, of_all, total=len(found), offset=question.offset)


def series_list(
    shown: Sequence[SeriesFacts], of_all: Facets, *, total: int, offset: int = 0
) -> SeriesList:
    """Return some series with the facets of all."""
    items = [_item(each) for each in shown]
    return SeriesList(total=total, offset=offset, items=items, facets=of_all)


def facets(catalogue: Catalogue) -> Facets:
    """Return what series can be told apart by."""
    every = list(catalogue.series.values())
    return Facets(
        models=_all(name for each in every for name in each.summary.models),
        hardware=_all(name for each in every for name in each.summary.hardware),
        precisions=_all(name for each in every for name in each.precisions),
        engines=_all(name.partition(" ")[0] for each in every for name in each.engines),
    )


def _fits(facts: SeriesFacts, question: SeriesQuestion) -> bool:
    summary = facts.summary
    wanted: list[tuple[str | None, Sequence[str]]] = [
        (question.model, summary.models),
        (question.hardware, summary.hardware),
        (question.precision, facts.precisions),
        (question.engine, [name.partition(" ")[0] for name in facts.engines]),
    ]
    if any(value is not None and value not in values for value, values in wanted):
        return False
    return question.q.lower() in summary.name.lower()


def _item(facts: SeriesFacts) -> SeriesItem:
    summary = facts.summary
    first, last = summary.first_measured_on, summary.last_measured_on
    return SeriesItem(
        name=summary.name,
        models=list(summary.models),
        hardware=list(summary.hardware),
        engines=list(facts.engines),
        precisions=list(facts.precisions),
        groups=list(facts.groups),
        runs=summary.runs,
        points=summary.points,
        fingerprints=len(summary.fingerprints),
        first_measured_on=first.isoformat() if first else None,
        last_measured_on=last.isoformat() if last else None,
    )


def _all(values: Iterable[str]) -> list[str]:
    return sorted(set(values))


def hardware(question: HardwareQuestion) -> Hardware:
    """Answer `hardware`."""
    on = question.on or datetime.now(UTC).date()
    table = prices().prices
    holding: dict[tuple[str, str | None], date] = {}
    for each in table:
        key = each.hardware, each.tier
        if each.valid_from and each.valid_from <= on:
            holding[key] = max(each.valid_from, holding.get(key, date.min))
    return Hardware(
        on=on.isoformat(),
        specifications=[
            Specification(
                **asdict(each)
                | {"all_in_kw": {day.isoformat(): kw for day, kw in each.all_in_kw.items()}}
            )
            for each in specifications().values()
        ],
        prices=[
            PriceRow(
                hardware=each.hardware,
                tier=each.tier or "",
                valid_from=each.valid_from.isoformat() if each.valid_from else "",
                usd_per_gpu_hour=each.usd_per_gpu_hour,
                holds=holding.get((each.hardware, each.tier)) == each.valid_from,
            )
            for each in table
        ],
        sources=[
            "Prices: SemiAnalysis AI Cloud TCO figures as used by InferenceX (2025-08, 2026-07).",
            "Specifications: vendor data; all-in power: SemiAnalysis AI Cloud TCO.",
        ],
    )
