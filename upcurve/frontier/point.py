"""One measured operating point, as the comparison sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """Throughput per GPU and interactivity of one run at one parallelism and concurrency.

    Points that agree in everything but `repeat` are repeated measurements of one operating point.
    """

    interactivity: float
    """Tokens per second per user: 1000 / median TPOT in ms."""
    tput_per_gpu: float
    """(Input + output) tokens per second over all GPUs used / number of GPUs."""
    tp: int
    """Tensor-parallel size."""
    gpus: int
    """GPUs used, prefill and decode together."""
    concurrency: int
    """Requests in flight, closed loop."""
    repeat: int = 0
    """Which repetition of the same operating point, from 0."""
