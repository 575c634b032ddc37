"""The pace of one request: how its tokens came, one after the other or together."""

from __future__ import annotations

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
    times, first = numpy.unique(numpy.array(trace.chunk_ns, dtype=numpy.int64), return_index=True)
    tokens = numpy.array(trace.chunk_tokens, dtype=numpy.int64)
    return times, numpy.add.reduceat(tokens, first) if len(first) else tokens


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


def chunk_gaps_ms(trace: RequestTrace) -> Values:
    """Return the gaps in ms between reads with content, whatever tokens they carried."""
    return numpy.diff(arrivals(trace)[0]) / 1e6


def paced(trace: RequestTrace) -> bool:
    """Whether tokens came after the first ones, so that they have a pace."""
    times, tokens = arrivals(trace)
    return len(times) > 1 and trace.tokens > int(tokens[0])
