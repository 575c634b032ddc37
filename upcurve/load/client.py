"""The closed loop: a fixed number of streams, each sending its next request as one ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from upcurve.load.target import Target
from upcurve.load.trace import RequestTrace
from upcurve.load.workload import Workload


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """How the client itself fared while it measured."""

    lag_p99_ms: float
    """99th percentile of how late the event loop ran a timer."""
    cpu_s: float
    """CPU seconds of this process."""
    saturated: bool
    """Whether the client was too busy for its timestamps to be trusted."""


async def probe(target: Target, workload: Workload, *, timeout_s: float = 600.0) -> Target:
    """Ask the server for one answer; return the target with what the server understands.

    Raises:
        InputError: nothing answers there, or the server refuses the model, the key, the lengths.
    """
    raise NotImplementedError


async def measure(
    target: Target,
    workload: Workload,
    *,
    concurrency: int,
    requests: int,
    warmup: int,
    timeout_s: float = 600.0,
    progress: Callable[[RequestTrace], None] | None = None,
) -> tuple[list[RequestTrace], ClientHealth]:
    """Measure one point; `probe` the target first, once per server.

    Args:
        target: the server, as `probe` returned it.
        workload: what is sent; give points on one server distinct seeds or salts.
        concurrency: requests in flight.
        requests: measured requests in all, at least one per stream.
        warmup: requests in all that are sent before, with prompts of their own; at least one per
            stream is sent.
        timeout_s: seconds that one request may take.
        progress: called with each request, warm-up included, once it has ended.

    Returns:
        The requests in the order of their ends, warm-up included, and how the client fared.
        Failed requests are among them; no failure raises.

    Raises:
        InputError: fewer requests than streams, or not so many distinct prompts.
    """
    raise NotImplementedError
