"""The pace of one request: how its tokens came, one after the other or together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy
import numpy.typing

from upcurve.load.trace import RequestTrace

Values = numpy.typing.NDArray[numpy.float64]
Whole = numpy.typing.NDArray[numpy.int64]


def arrivals(trace: RequestTrace) -> tuple[Whole, Whole]:
    """Return times in ns and tokens of what arrived together: one chunk, or several in one read.

    A proxy that buffers an answer hands over many chunks at once; their tokens have no pace of
    their own, no more than those of one chunk have.
    """
    times = numpy.array(trace.chunk_ns, dtype=numpy.int64)
    tokens = numpy.array(trace.chunk_tokens, dtype=numpy.int64)
    new = numpy.diff(times, prepend=times[:1] - 1) > 0
    if new.all():
        return times, tokens
    return times[new], numpy.add.reduceat(tokens, numpy.flatnonzero(new))


@dataclass(frozen=True, slots=True)
class Pace:
    """All that the arrivals of one request tell, found once."""

    tpot_ms: float | None
    """None where no token came after the first ones."""
    gaps_ms: Values
    chunk_gaps_ms: Values
    arrivals: int
    """Reads with content."""
    tokens: int
    """Tokens that they carried."""

    @classmethod
    def of(cls, trace: RequestTrace) -> Self:
        """Return the pace of a request that did not fail."""
        times, counts = arrivals(trace)
        has_pace = len(times) > 1 and trace.tokens > int(counts[0])
        chunk_gaps = numpy.diff(times) / 1e6
        alone = len(counts) > 0 and counts.min() == counts.max() == 1
        return cls(
            tpot_ms=tpot_ms(trace) if has_pace else None,
            # Where each token comes alone there is nothing to spread.
            gaps_ms=chunk_gaps if alone else gaps_ms(trace),
            chunk_gaps_ms=chunk_gaps,
            arrivals=len(times),
            tokens=int(counts.sum()),
        )


def tpot_ms(trace: RequestTrace) -> float:
    """Return (last - first) / (n - n_first) in ms, n_first the tokens that arrived first.

    With one token first this is (end-to-end latency - TTFT) / (n - 1); with more, that form is too
    fast by the tokens that came for free.
    """
    times, tokens = arrivals(trace)
    return float(times[-1] - times[0]) / 1e6 / (trace.tokens - int(tokens[0]))


def gaps_ms(trace: RequestTrace) -> Values:
    """Return the gap in ms before each token after the first; k that come together have k equal."""
    times, counts = arrivals(trace)
    tokens, gaps = counts[1:], numpy.diff(times) / 1e6
    # A chunk without a token of its own lends its time to the next one that has some.
    owner = numpy.concatenate([[0], numpy.cumsum(tokens > 0)[:-1]]) if len(tokens) else tokens
    filled = tokens[tokens > 0]
    sums = numpy.bincount(owner.astype(numpy.int64), gaps, minlength=len(filled))[: len(filled)]
    return numpy.repeat(sums / filled, filled)
