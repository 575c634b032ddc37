"""Which slices go from which prefill rank to which decode rank: pure functions of sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from upcurve.engine.transfer.description import Description


@dataclass(frozen=True, slots=True)
class Span:
    """`count` heads or channels that lie one after the other on both ranks."""

    source: int
    """Where they begin among those of the source rank."""
    target: int
    count: int


@dataclass(frozen=True, slots=True)
class Route:
    """What one prefill rank sends to one decode rank."""

    source: int
    target: int
    kv_heads: Span | None
    value_heads: Span | None
    channels: tuple[Span, ...]
    """Of the convolution: those of q, of k and of v."""

    def __bool__(self) -> bool:
        return bool(self.kv_heads or self.value_heads)


def routes(whole: Description, source_tp: int, target_tp: int) -> list[Route]:
    """Return all routes between the ranks of two engines.

    Where several source ranks have the same key-value head, a target rank gets it from one of them:
    equally many targets from each, as far as they divide.

    Args:
        whole: heads of the model.
        source_tp: ranks of the prefill engine.
        target_tp: ranks of the decode engine.
    """
    found = []
    for target in range(target_tp):
        for source in range(source_tp):
            route = Route(
                source,
                target,
                _kv_heads(whole.kv_heads, source, source_tp, target, target_tp),
                _shared(whole.value_heads, source, source_tp, target, target_tp),
                tuple(_channels(whole, source, source_tp, target, target_tp)),
            )
            if route:
                found.append(route)
    return found


def joined(spans: Iterable[Span]) -> list[Span]:
    """Put together what lies one behind the other on both ranks: q, k and v between whole ranks."""
    found: list[Span] = []
    for span in spans:
        before = found[-1] if found else None
        if before is not None and (span.source, span.target) == (
            before.source + before.count,
            before.target + before.count,
        ):
            found[-1] = Span(before.source, before.target, before.count + span.count)
        else:
            found.append(span)
    return found


def _kv_heads(count: int, source: int, source_tp: int, target: int, target_tp: int) -> Span | None:
    """Return the overlap; None too where another source has the same head and sends it."""
    copies, wanted = max(1, source_tp // count), max(1, target_tp // count)
    if copies > 1 and source % copies != target % wanted * copies // wanted:
        return None
    # As ranks of one engine share them: `Sharding`.
    held, needed = max(1, count // source_tp), max(1, count // target_tp)
    return _overlap(source * count // source_tp, held, target * count // target_tp, needed)


def _shared(count: int, source: int, source_tp: int, target: int, target_tp: int) -> Span | None:
    """Return the overlap of two of as many equal parts as there are ranks on either side."""
    held, needed = count // source_tp, count // target_tp
    return _overlap(source * held, held, target * needed, needed)


def _channels(
    whole: Description, source: int, source_tp: int, target: int, target_tp: int
) -> Iterator[Span]:
    """Yield the overlap of each block of the convolution: q, k and v are shared one by one."""
    keys = whole.key_heads, whole.key_head_dim
    source_start = target_start = 0
    for heads, dim in (keys, keys, (whole.value_heads, whole.value_head_dim)):
        span = _shared(heads, source, source_tp, target, target_tp)
        if span is not None:
            yield Span(
                source_start + span.source * dim,
                target_start + span.target * dim,
                span.count * dim,
            )
        source_start += heads // source_tp * dim
        target_start += heads // target_tp * dim


def _overlap(source: int, held: int, target: int, needed: int) -> Span | None:
    begin, end = max(source, target), min(source + held, target + needed)
    return Span(begin - source, begin - target, end - begin) if begin < end else None
