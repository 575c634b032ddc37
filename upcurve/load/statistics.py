"""Values -> mean and percentiles, each only where the sample can carry it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from upcurve.load.pace import Values

MINIMUM_SAMPLES = {"p50": 1, "p90": 64, "p99": 662, "p99.9": 6636}
"""Fewest values that a percentile is given from: MLPerf's early-stopping table at 99 %."""

LOW_MINIMUM_SAMPLES = {"p50": 1, "p10": 64, "p1": 662}
"""The same for what is worse the lower it is: p10 of interactivity is the p90-slow user."""


def statistics(
    values: Sequence[float] | Values, minimum: dict[str, int] = MINIMUM_SAMPLES
) -> dict[str, Any]:
    """Return mean, percentiles, min, max and count; None where the sample cannot carry it."""
    sample = numpy.asarray(values, dtype=numpy.float64)
    count = len(sample)
    wanted = [name for name, fewest in minimum.items() if count >= fewest]
    percentiles = {name: float(numpy.percentile(sample, float(name[1:]))) for name in wanted}
    return {
        "mean": float(sample.mean()) if count else None,
        **{name: percentiles.get(name) for name in minimum},
        "min": float(sample.min()) if count else None,
        "max": float(sample.max()) if count else None,
        "count": count,
    }
