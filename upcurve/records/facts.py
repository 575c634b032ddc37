"""Records as the comparison sees them: points, and what a reader must know to believe them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from upcurve.frontier.point import Facts, Point
from upcurve.records.layout import LAYOUT
from upcurve.records.run import PointRecord


def facts(
    requests: int | None,
    failed: int | None,
    result: Mapping[str, Any] | None,
    accuracy: Mapping[str, Any] | None = None,
) -> Facts:
    """Return what is known of a point beside its figures; the noise of its requests is not.

    Args:
        requests: behind the figures.
        failed: those of them that failed.
        result: what `bench --json` prints.
        accuracy: as it was measured at this very operating point.
    """
    known = result or {}
    saturated = (known.get("client") or {}).get("saturated")
    return Facts(
        requests, failed, saturated, known.get("output_length_ok"), (accuracy or {}).get("passed")
    )


def as_point(record: PointRecord) -> Point:
    """Return a record's point with its facts."""
    return Point(
        record.interactivity,
        record.tput_per_gpu,
        concurrency=record.concurrency,
        repeat=record.repeat,
        facts=facts(record.requests, record.failed, record.result, record.accuracy),
        **{name: getattr(record, name) for name in LAYOUT},
    )
