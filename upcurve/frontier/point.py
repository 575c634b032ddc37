"""One measured operating point, as the comparison sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Place(NamedTuple):
    """Layout and concurrency: what repeats of an operating point have in common."""

    tp: int
    ep: int
    dp: int
    gpus: int
    prefill_gpus: int
    """0 where prefill and decode are not apart."""
    concurrency: int

    @property
    def layout(self) -> str:
        """The layout in words."""
        sizes = [f"EP{self.ep}"] * (self.ep > 1) + [f"DP{self.dp}"] * (self.dp > 1)
        words = " ".join([f"TP{self.tp}", *sizes])
        if self.prefill_gpus:
            return f"{words} on {self.prefill_gpus} + {self.gpus - self.prefill_gpus} GPUs"
        return words + (f" on {self.gpus} GPUs" if self.gpus != self.tp * self.dp else "")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a reader must know to believe a point; None where nobody recorded it."""

    requests: int | None = None
    """Requests behind the figures, failed ones included."""
    failed: int | None = None
    client_saturated: bool | None = None
    """Whether the load client was at its own limits."""
    output_length_ok: bool | None = None
    """Whether every answer had the length that was asked for."""
    accuracy_passed: bool | None = None
    """Outcome of the accuracy check at this very point; None where there was none."""
    request_noise: tuple[float, float] | None = None
    """Variances of log interactivity and log throughput that a sample of these requests has."""


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
    id: int | None = field(default=None, compare=False)
    """Which row of a store it is; None where it comes from none."""
    facts: Facts | None = field(default=None, compare=False)
    ep: int = 1
    """Expert-parallel size."""
    dp: int = 1
    """Data-parallel size."""
    prefill_gpus: int | None = None
    """GPUs that only prefill; None where prefill and decode share all."""
    decode_gpus: int | None = None
    """GPUs that only decode."""

    @property
    def place(self) -> Place:
        """What its repeats have in common."""
        apart = self.prefill_gpus or 0
        return Place(self.tp, self.ep, self.dp, self.gpus, apart, self.concurrency)
