"""Requests -> the figures of one point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from upcurve.load.client import ClientHealth
from upcurve.load.trace import RequestTrace
from upcurve.load.workload import Workload


def point_metrics(
    traces: Sequence[RequestTrace],
    health: ClientHealth,
    workload: Workload,
    *,
    concurrency: int,
    gpus: int,
) -> dict[str, Any]:
    """Return what `bench --json` prints for one point; figures no request carries are None."""
    raise NotImplementedError
