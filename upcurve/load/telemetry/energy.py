"""Energy that a GPU used in a span of time, and whether the figure can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

LONGEST_GAP_S = 1.0
SHORTEST_SPAN_S = 2.0
LARGEST_DIFFERENCE = 0.05
"""Between the GPU's own counter and the integral of its sampled power, as a share of the former."""


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy in a span."""

    joules: float | None
    """Of the part of the span that was seen; None where nothing was."""
    valid: bool
    note: str
    """How it was found, and why it is not valid."""


@dataclass(frozen=True, slots=True)
class _Curve:
    """Known values of a quantity over time, both float64 of the same length."""

    seconds: NDArray[numpy.float64]
    values: NDArray[numpy.float64]

    def within(self, start: float, end: float) -> _Curve:
        """Return the part in a span, with its ends interpolated, shorter where less is known."""
        start, end = max(start, self.seconds[0]), min(end, self.seconds[-1])
        inside = self.seconds[(self.seconds > start) & (self.seconds < end)]
        seconds = numpy.concatenate(([start], inside, [end])) if start < end else inside
        return _Curve(seconds, numpy.interp(seconds, self.seconds, self.values))

    def longest_gap(self, start: float, end: float) -> float:
        """Return the longest time without a value among those that bracket a span."""
        first = max(0, int(numpy.searchsorted(self.seconds, start, side="right")) - 1)
        last = int(numpy.searchsorted(self.seconds, end, side="left"))
        gaps = numpy.diff(self.seconds[first : last + 1])
        return float(gaps.max(initial=0.0))


def span_energy(
    times_ns: Sequence[int],
    power_w: Sequence[float | None],
    counter_j: Sequence[float | None],
    start_ns: int,
    end_ns: int,
) -> Energy:
    """Return the energy used between two moments.

    By the GPU's own counter where it has one, interpolated at both ends of the span; else by the
    trapezoidal rule over the sampled power.

    Args:
        times_ns: When the samples were taken, ascending.
        power_w: Power at these times in W, None where it is not known.
        counter_j: Energy counter at these times in J, None where there is none.
        start_ns: Begin of the span.
        end_ns: Its end.
    """
    start, end = 0.0, (end_ns - start_ns) / 1e9
    power = _curve(times_ns, power_w, start_ns)
    counter = _curve(times_ns, counter_j, start_ns)
    used = counter or power
    if used is None or used.within(start, end).seconds.size == 0:
        return Energy(None, False, "neither power nor an energy counter was seen in the span")
    problems = []
    if end < SHORTEST_SPAN_S:
        problems.append(f"the span of {end:.1f} s is shorter than {SHORTEST_SPAN_S:g} s")
    if used.seconds[0] > start or used.seconds[-1] < end:
        problems.append("the samples do not cover the whole span")
    gap = max(curve.longest_gap(start, end) for curve in (power, counter) if curve)
    if gap > LONGEST_GAP_S:
        problems.append(f"there is no sample for {gap:.1f} s")
    integral = _integral(power.within(start, end)) if power else None
    if counter is None:
        joules, note = integral, "integral of sampled power"
    else:
        counted = counter.within(start, end).values
        joules, note = float(counted[-1] - counted[0]), "the GPU's energy counter"
        if (numpy.diff(counted) < 0).any():
            joules, note = integral, "integral of sampled power"
            problems.append("the GPU's energy counter fell")
        elif integral is None:
            note += ", not checked against power"
        elif abs(joules - integral) > LARGEST_DIFFERENCE * joules:
            problems.append(
                f"the counter's {joules:.1f} J and the {integral:.1f} J of sampled power "
                f"differ by more than {LARGEST_DIFFERENCE:.0%}"
            )
    return Energy(joules, not problems, "; ".join([note, *problems]))


def _curve(times_ns: Sequence[int], values: Sequence[float | None], start_ns: int) -> _Curve | None:
    """Return what is known, in seconds from the begin of the span."""
    known = [
        ((time_ns - start_ns) / 1e9, value)
        for time_ns, value in zip(times_ns, values, strict=True)
        if value is not None
    ]
    if not known:
        return None
    seconds, figures = numpy.array(known, numpy.float64).T
    return _Curve(seconds, figures)


def _integral(curve: _Curve) -> float | None:
    if curve.seconds.size == 0:
        return None
    return float(numpy.trapezoid(curve.values, curve.seconds))
