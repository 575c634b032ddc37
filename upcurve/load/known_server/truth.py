"""What the server really did: per request, and as the figures that a client should report."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import orjson

from upcurve.errors import InputError
from upcurve.files import write_whole
from upcurve.load.known_server.behaviour import FaultKind

_WHOLE = (None, "stall", "burst")


@dataclass(slots=True)
class Served:
    """What the server really did with one request; times in ns of `time.perf_counter_ns`."""

    arrived_ns: int
    """When its first bytes were read."""
    prompt_tokens: int
    prompt_digest: str
    warm: bool
    """Whether its connection had carried a request before."""
    in_flight: int
    """Requests in the server with this one."""
    fault: FaultKind | None = None
    written_ns: array[int] = field(default_factory=lambda: array("q"))
    """Just before each chunk with tokens was written."""
    written_tokens: array[int] = field(default_factory=lambda: array("i"))
    """Tokens in each chunk."""
    ended_ns: int | None = None
    """After the last write; None where the client left first."""
    endpoint: str = "/v1/completions"
    asked_tokens: int = 0
    stall_ms: float = 0.0
    """The pause that was made on top of the interval; 0 without one."""
    stalled_after: int | None = None
    """Tokens that were written before the pause."""
    started_ns: int | None = None
    """When its slot was free; None where it was never computed."""
    left_ns: int | None = None
    """When the server saw that the client had left."""

    @property
    def tokens(self) -> int:
        """Tokens written."""
        return sum(self.written_tokens)

    @property
    def whole(self) -> bool:
        """Whether all tokens that were asked for were written, to the end of the answer."""
        return self.ended_ns is not None and self.fault in _WHOLE and bool(self.written_ns)

    @property
    def ttft_ms(self) -> float:
        """From the arrival to the first write."""
        return (self.written_ns[0] - self.arrived_ns) / 1e6

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per token after the first write; None where it had all of them."""
        later = self.tokens - self.written_tokens[0]
        return (self.written_ns[-1] - self.written_ns[0]) / 1e6 / later if later else None


def truth(served: Sequence[Served]) -> dict[str, Any]:
    """Return every request in brief, and the summary, for JSON."""
    requests = [
        {
            "arrived_ns": each.arrived_ns,
            "ended_ns": each.ended_ns,
            "prompt_tokens": each.prompt_tokens,
            "in_flight": each.in_flight,
            "fault": each.fault,
            "endpoint": each.endpoint,
            "first_written_ns": each.written_ns[0] if each.written_ns else None,
            "last_written_ns": each.written_ns[-1] if each.written_ns else None,
            "tokens": each.tokens,
            "chunks": len(each.written_ns),
        }
        for each in served
    ]
    return {"requests": requests, "summary": truth_summary(served)}


def write_truth(path: Path, served: Sequence[Served]) -> None:
    """Write `truth` as JSON, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    text = orjson.dumps(truth(served), option=orjson.OPT_APPEND_NEWLINE)
    try:
        write_whole(path, lambda file: file.write(text))
    except OSError as error:
        problem = f"{path} cannot be written ({error.strerror})"
        raise InputError("truth", problem, "name a file in a writable folder") from error


def check_truth_file(path: Path) -> None:
    """Find out before a run whether `write_truth` will be able to write the file.

    Raises:
        InputError: its folder is missing or takes no file.
    """
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError("truth", f"{path} cannot be written", "name a file in a writable folder")


def truth_summary(served: Sequence[Served]) -> dict[str, Any]:
    """Return what a client should have measured.

    Args:
        served: in the order of arrival; leave out what the client does not count, as its warm-up.

    Returns:
        `requests` that were answered whole, their `tokens`, `ttft_ms` (mean, p50, p99) and
        `tpot_ms` (mean, p50); `concurrency_mean`, the mean number of all requests in the server
        from the first moment of its maximum until the last arrival; `duration_s` from the first
        arrival to the last end, and `tokens_per_s` over it. None for what has no value.
    """
    whole = [each for each in served if each.whole]
    tokens = sum(each.tokens for each in whole)
    duration_s = None
    if whole:
        ends = (each.ended_ns for each in whole if each.ended_ns is not None)
        duration_s = (max(ends) - min(each.arrived_ns for each in whole)) / 1e9
    tpot_ms = [each.tpot_ms for each in whole]
    return {
        "requests": len(whole),
        "tokens": tokens,
        "ttft_ms": _figures([each.ttft_ms for each in whole], 50, 99),
        "tpot_ms": _figures([each for each in tpot_ms if each is not None], 50),
        "concurrency_mean": _concurrency(served),
        "tokens_per_s": tokens / duration_s if duration_s else None,
        "duration_s": duration_s,
    }


def _figures(values: Sequence[float], *percentiles: int) -> dict[str, float | None]:
    names = ["mean", *(f"p{each}" for each in percentiles)]
    if not values:
        return dict.fromkeys(names)
    found = numpy.percentile(values, percentiles)
    return dict(zip(names, map(float, [numpy.mean(values), *found]), strict=True))


def _concurrency(served: Sequence[Served]) -> float | None:
    if not served:
        return None
    now = time.perf_counter_ns()  # what is still there ends later
    ends = [each.ended_ns or each.left_ns or now for each in served]
    arrived, ended = numpy.array([each.arrived_ns for each in served]), numpy.array(ends)
    times = numpy.concatenate([arrived, ended])
    steps = numpy.repeat([1, -1], len(served))
    order = numpy.lexsort((steps, times))  # at one moment, who leaves goes before who comes
    start = times[order][numpy.argmax(numpy.cumsum(steps[order]))]
    stop = arrived.max()
    if stop <= start:
        return None
    inside = numpy.minimum(ended, stop) - numpy.maximum(arrived, start)
    return float(numpy.clip(inside, 0, None).sum() / (stop - start))
