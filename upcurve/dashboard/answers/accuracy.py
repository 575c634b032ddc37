"""Accuracy by operating point: as it was recorded, with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

from scipy.special import ndtri

from upcurve.dashboard.catalogue import Catalogue, group_id
from upcurve.dashboard.contract.common import Interval
from upcurve.dashboard.contract.questions import AccuracyQuestion
from upcurve.dashboard.contract.runs import Accuracy, AccuracyPoint
from upcurve.dashboard.reader import Reader
from upcurve.records.browse import Figures, figures

MOST_POINTS = 500


def accuracy(reader: Reader, question: AccuracyQuestion) -> Accuracy:
    """Answer `accuracy`."""
    catalogue = reader.catalogue()
    names = list(question.series)
    isl = osl = None
    if question.group is not None:
        group = catalogue.group(question.group)
        isl, osl = group.isl, group.osl
        names = names or group.series
    chosen = [catalogue.one(name) for name in names] or list(catalogue.series.values())
    checked = [run.id for each in chosen if each.checked for run in each.runs]
    found = [each for each in figures(reader.store, checked, isl, osl) if each.accuracy]
    found.sort(key=lambda each: (each.measured_at, each.point.id or 0), reverse=True)
    with_any = {catalogue.runs[each.run].series for each in found}
    return Accuracy(
        total=len(found),
        items=list(_items(catalogue, found[:MOST_POINTS])),
        unchecked=[e.summary.name for e in chosen if e.summary.name not in with_any],
    )


def _items(catalogue: Catalogue, found: list[Figures]) -> Iterator[AccuracyPoint]:
    for each in found:
        run, recorded = catalogue.runs[each.run], each.accuracy or {}
        score = _number(recorded.get("score"))
        items = _number(recorded.get("n"))
        whole = int(items) if items is not None and items >= 1 else None
        passed = recorded.get("passed")
        yield AccuracyPoint(
            series=run.series,
            run=run.id,
            point=each.point.id or 0,
            group=group_id(run.model, each.isl, each.osl),
            hardware=run.hardware,
            layout=each.point.place.layout,
            tp=each.point.tp,
            gpus=each.point.gpus,
            concurrency=each.point.concurrency,
            interactivity=each.point.interactivity,
            tput_per_gpu=each.point.tput_per_gpu,
            measured_on=each.measured_at.astimezone(UTC).date().isoformat(),
            task=str(recorded.get("task", "")),
            score=score,
            interval=_interval(recorded, score, whole),
            items=whole,
            passed=passed if isinstance(passed, bool) else None,
            threshold=_number(recorded.get("threshold", recorded.get("minimum"))),
            recorded=recorded,
        )


def _number(value: Any) -> float | None:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if real and math.isfinite(value) else None


def _interval(
    recorded: Mapping[str, Any], score: float | None, items: int | None
) -> Interval | None:
    given = recorded.get("interval")
    if isinstance(given, list) and len(given) == 2:
        low, high = map(_number, given)
        if low is not None and high is not None:
            return low, high
    if score is None or items is None or not 0 <= score <= 1:
        return None
    return wilson(score, items)


def wilson(score: float, items: int) -> Interval:
    """Return Wilson's 95 % score interval of a proportion.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal
    of the American Statistical Association 22, 209-212 (1927).

    Args:
        score: right answers / items.
        items: at least one.
    """
    z2 = float(ndtri(0.975)) ** 2
    centre = (score + z2 / (2 * items)) / (1 + z2 / items)
    width = math.sqrt(z2 * (score * (1 - score) / items + z2 / (4 * items**2))) / (1 + z2 / items)
    return max(0.0, centre - width), min(1.0, centre + width)
