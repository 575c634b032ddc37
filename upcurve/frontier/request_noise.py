"""How far one run's figures would move if it had drawn other requests of the same kind."""

from __future__ import annotations

import numpy as np

from upcurve.frontier.interpolation import Floats

RESAMPLES = 200
"""A standard deviation from 200 resamples is within 5 % (one standard error) of its limit."""


def request_noise(tpot: Floats, end_to_end: Floats) -> tuple[float, float] | None:
    """Return the variances of log interactivity and log throughput that come from the requests.

    Interactivity is one over the median TPOT, whose variance is bootstrapped. Throughput of a
    closed loop is in proportion to one over the mean end-to-end time, whose relative variance is
    that of a mean. Requests of one run share steps, so this is a lower bound.

    Args:
        tpot: time per output token of each request, float64 [N], any unit.
        end_to_end: time from sending to the last token of each, float64 [N], any unit.

    Returns:
        None for fewer than two requests, or where a time is not positive.
    """
    count = len(tpot)
    if count < 2 or tpot.min() <= 0 or end_to_end.min() <= 0:
        return None
    picks = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    medians = np.log(np.median(tpot[picks], axis=1))
    relative = end_to_end.std(ddof=1) / end_to_end.mean()
    return float(medians.var(ddof=1)), float(relative**2 / count)
