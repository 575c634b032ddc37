"""When requests are sent: as others end (closed loop), or at times of their own (open loop)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy
import numpy.typing

from upcurve.errors import InputError

MAX_STREAMS = 65_535
"""TCP ports that a client has towards one address."""

STAGGER_S = 0.002
"""Between the first requests of two streams: a burst would queue in the client itself."""

Process = Literal["constant", "poisson", "gamma"]
Offsets = numpy.typing.NDArray[numpy.int64]


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """A fixed number of streams, each sending its next request as one ends.

    Either `requests` or `duration_s` bounds it. After the duration no request is sent; those in
    flight are awaited.
    """

    concurrency: int
    """Requests in flight."""
    requests: int | None = None
    """Requests in all, at least one per stream."""
    duration_s: float | None = None
    ramp_s: float | None = None
    """Seconds over which the streams start, evenly; None: 2 ms apart."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: a value is not positive, more streams than ports, or fewer requests than
                streams.
        """
        _positive("concurrency", self.concurrency)
        if self.concurrency > MAX_STREAMS:
            problem = f"{self.concurrency} streams are more than a client has ports"
            raise InputError("concurrency", problem, f"give at most {MAX_STREAMS}")
        _one_bound(self.requests, self.duration_s)
        _positive("ramp", self.ramp_s, or_zero=True)
        if self.requests is not None and self.requests < self.concurrency:
            problem = f"{self.requests} requests cannot fill {self.concurrency} streams"
            raise InputError("requests", problem, f"give at least {self.concurrency}")
        if self.duration_s is not None and (self.ramp_s or 0) >= self.duration_s:
            problem = f"{self.ramp_s:g} s leave nothing of a duration of {self.duration_s:g} s"
            raise InputError("ramp", problem, "give a shorter ramp")

    @property
    def stagger_ns(self) -> int:
        """Between the first requests of two streams."""
        if self.ramp_s is None:
            return round(STAGGER_S * 1e9)
        return round(self.ramp_s * 1e9 / max(1, self.concurrency - 1))

    def facts(self) -> dict[str, Any]:
        """Return what a record says about it."""
        return {
            "loop": "closed",
            "requests": self.requests,
            "duration_s": self.duration_s,
            "ramp_s": self.ramp_s,
        }


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Requests at times that do not depend on the answers.

    Gaps are drawn, never rescaled: a Poisson process of rate r has a number of arrivals in T
    seconds that itself varies. Gamma gaps have shape `burstiness` and mean 1 / rate: below 1 is
    burstier than Poisson, above 1 more even.
    """

    rate: float
    """Requests per second."""
    process: Process = "poisson"
    burstiness: float = 1.0
    requests: int | None = None
    duration_s: float | None = None
    ramp_s: float = 0.0
    """Seconds over which the rate rises from 0, linearly."""
    limit: int | None = None
    """Most requests in flight; later ones wait, and their wait is part of their latency."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: a value is not positive, the seed negative, or a burstiness without gamma
                gaps.
        """
        _positive("rate", self.rate)
        _positive("burstiness", self.burstiness)
        _positive("ramp", self.ramp_s, or_zero=True)
        _positive("max-in-flight", self.limit)
        _one_bound(self.requests, self.duration_s)
        if self.seed < 0:
            raise InputError("seed", f"{self.seed} is out of range", "give 0 or more")
        if self.process not in ("constant", "poisson", "gamma"):
            raise InputError("arrivals", f"{self.process!r}", "give constant, poisson or gamma")
        if self.burstiness != 1.0 and self.process != "gamma":
            mend = "give --arrivals gamma"
            raise InputError("burstiness", f"{self.process} gaps have none to choose", mend)
        if self.duration_s is not None and self.ramp_s >= self.duration_s:
            problem = f"{self.ramp_s:g} s leave nothing of a duration of {self.duration_s:g} s"
            raise InputError("ramp", problem, "give a shorter ramp")

    def offsets_ns(self) -> Offsets:
        """Return when each request is due, in ns from the start, ascending, int64.

        The ramp runs the same process on a warped clock: of the unit-rate arrival u, the time t
        solves integral(rate(s), 0..t) = u, with rate(s) = rate * s / ramp up to the ramp's end.
        """
        rng = numpy.random.default_rng([self.seed, 0x6172_7269])
        count = self.requests or math.ceil(self._mean_arrivals * 1.2 + 100)
        while True:
            units = numpy.cumsum(self._unit_gaps(rng, count))
            if self.process == "constant":
                units -= units[0]  # the first at once, as a metronome
            seconds = self._warped(units)
            if self.requests is not None:
                break
            assert self.duration_s is not None, "one of both bounds it"
            if seconds[-1] >= self.duration_s:
                seconds = seconds[seconds < self.duration_s]
                break
            count *= 2
            rng = numpy.random.default_rng([self.seed, 0x6172_7269])
        return numpy.round(seconds * 1e9).astype(numpy.int64)

    def facts(self) -> dict[str, Any]:
        """Return what a record says about it."""
        return {
            "loop": "open",
            "rate": self.rate,
            "arrivals": self.process,
            "burstiness": self.burstiness,
            "requests": self.requests,
            "duration_s": self.duration_s,
            "ramp_s": self.ramp_s,
            "max_in_flight": self.limit,
        }

    @property
    def _mean_arrivals(self) -> float:
        return self.rate * ((self.duration_s or 0) - self.ramp_s / 2)

    def _unit_gaps(
        self, rng: numpy.random.Generator, count: int
    ) -> numpy.typing.NDArray[numpy.float64]:
        if self.process == "constant":
            return numpy.ones(count)
        shape = self.burstiness if self.process == "gamma" else 1.0
        return rng.gamma(shape, 1 / shape, count)

    def _warped(
        self, units: numpy.typing.NDArray[numpy.float64]
    ) -> numpy.typing.NDArray[numpy.float64]:
        if self.ramp_s == 0:
            return units / self.rate
        in_ramp = self.rate * self.ramp_s / 2
        return numpy.where(
            units < in_ramp,
            numpy.sqrt(2 * units * self.ramp_s / self.rate),
            self.ramp_s + (units - in_ramp) / self.rate,
        )


Load = ClosedLoop | OpenLoop


def _positive(name: str, value: float | None, *, or_zero: bool = False) -> None:
    if value is None or (or_zero and value == 0):
        return
    if not (math.isfinite(value) and value > 0):
        raise InputError(name, f"{value} is out of range", "give a number above 0")


def _one_bound(requests: int | None, duration_s: float | None) -> None:
    if (requests is None) == (duration_s is None):
        raise InputError("requests", "either a number or a duration bounds a load", "give one")
    _positive("requests", requests)
    _positive("duration", duration_s)
