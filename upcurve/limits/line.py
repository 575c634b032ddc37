"""The speed-of-light line: the frontier of every batch and layout whose steps take least time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from upcurve.errors import InputError
from upcurve.frontier.pareto import non_dominated
from upcurve.limits.shape import ModelShape, Precision
from upcurve.limits.step import Bound, Chip, decode_step, fits, prompt_seconds

BATCHES = tuple(sorted({round(2 ** (step / 4)) for step in range(41)}))
"""From 1 to 1,024, four to a doubling."""


@dataclass(frozen=True, slots=True)
class LinePoint:
    """One batch on one layout."""

    batch: int
    gpus: int
    step_s: float
    bound: Bound
    interactivity: float
    """1 / step time: tok/s/user."""
    tput_per_gpu: float
    """(Input + output) tokens/s / GPUs."""
    e2e_ms: float
    """First token as early as can be, then one step a token."""


def layouts(shape: ModelShape, precision: Precision, chip: Chip) -> list[int]:
    """Return the numbers of GPUs, powers of two, that hold the weights."""
    counts = [2**power for power in range(int(math.log2(min(chip.gpus, 16))) + 1)]
    return [gpus for gpus in counts if fits(shape, precision, chip, gpus, 1, 0)]


def every_point(
    shape: ModelShape,
    precision: Precision,
    chip: Chip,
    isl: int,
    osl: int,
    gpus: Sequence[int] | None = None,
) -> list[LinePoint]:
    """Return all batches that fit on all layouts.

    Args:
        shape: of the model.
        precision: of weights, keys and values.
        chip: one of the GPUs.
        isl: input length in tokens.
        osl: output length in tokens.
        gpus: numbers of GPUs; None takes every power of two that holds the weights.

    Raises:
        InputError: lengths are not positive, or the weights fit on none of the layouts.
    """
    if isl < 1 or osl < 1:
        raise InputError("isl", f"{isl} in / {osl} out is no workload", "give positive lengths")
    context = isl + osl / 2
    found = []
    for count in gpus or layouts(shape, precision, chip):
        first = prompt_seconds(shape, precision, chip, count, isl)
        for batch in BATCHES:
            if not fits(shape, precision, chip, count, batch, context):
                break
            step = decode_step(shape, precision, chip, count, batch, isl=isl, osl=osl)
            found.append(
                LinePoint(
                    batch=batch,
                    gpus=count,
                    step_s=step.seconds,
                    bound=step.bound,
                    interactivity=1 / step.seconds,
                    tput_per_gpu=batch * (isl + osl) / osl / step.seconds / count,
                    e2e_ms=1000 * (first + (osl - 1) * step.seconds),
                )
            )
    if not found:
        asked = f" on {','.join(map(str, gpus))} GPUs" if gpus else ""
        problem = (
            f"{shape.name} in {precision} does not fit with a request of {isl} in / {osl} out"
            f"{asked}; {chip.name} has {chip.memory_bytes / 1e9:g} GB"
        )
        raise InputError("hardware", problem, "give more GPUs, or shorter lengths")
    return found


def line(points: Sequence[LinePoint], *, latency: bool = False) -> list[LinePoint]:
    """Return the points that no other beats, by ascending interactivity, or end-to-end latency."""
    x = np.array([-each.e2e_ms if latency else each.interactivity for each in points])
    y = np.array([each.tput_per_gpu for each in points])
    kept = [points[index] for index in non_dominated(x, y)]
    return kept[::-1] if latency else kept


def at(points: Sequence[LinePoint], interactivity: float) -> float | None:
    """Return the limit of throughput per GPU at an interactivity; None where no layout reaches it.

    On the straight line between the points of the frontier; below its slowest point, that
    point's: a faster user is served no better by waiting.
    """
    knots = line(points)
    if interactivity > knots[-1].interactivity:
        return None
    x = [each.interactivity for each in knots]
    return float(np.interp(interactivity, x, [each.tput_per_gpu for each in knots]))
