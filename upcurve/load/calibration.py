"""What this client can carry here: measured against a server of known timing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from upcurve.load.arrivals import ClosedLoop
from upcurve.load.client import ClientError, LoadClient, most_workers
from upcurve.load.known_server import Behaviour, known_server_process, truth_summary
from upcurve.load.limits import Limits, Machine
from upcurve.load.metrics import point_metrics
from upcurve.load.search import Search
from upcurve.load.target import Target
from upcurve.load.workload import SyntheticWorkload

BEHAVIOUR = Behaviour(first_ms=100.0, interval_ms=20.0)
"""The server's pace: that of a well-loaded engine."""
OSL = 64
REQUESTS_PER_STREAM = 3
LADDER = (1, 16, 64)
"""Streams that are measured in any case: what a user's small points rest on."""
MOST_STREAMS = 4096

TTFT_BAR_MS = 3.0
"""Most error of the median time to first token."""
TPOT_BAR = 0.005
"""Most error of the median time per output token, as a share."""
DELIVERED_BAR = 0.02
"""Most that the requests really in the server may fall short, as a share."""
LAG_BAR_MS = 10.0

Told = Callable[[dict[str, Any]], None]


def calibrate(workers: int | None = None, *, told: Told = lambda _: None) -> Limits:
    """Measure up to how many streams, at 50 tokens/s each, this client tells the truth.

    After a fixed ladder the edge is searched as `bench --search` does, by how far each error uses
    its bar up. The server shares the machine: with a server elsewhere the limits are higher.

    Args:
        workers: measuring processes at most; None: one per core but one.
        told: called with each row once it is measured.

    Raises:
        ClientError: not even one stream is read with true times.
    """
    rows: dict[float, dict[str, Any]] = {}

    def measured(streams: int) -> float:
        rows[streams] = row = _row(streams, workers)
        told(row)
        return float(row["strain"])

    for streams in LADDER:
        measured(streams)
    search = Search(LADDER[-1], MOST_STREAMS, whole=True)
    tried = {float(LADDER[-1]): float(rows[LADDER[-1]]["strain"])}
    while (level := search.next(tried)) is not None:
        tried[level] = measured(round(level))
    kept = [row for row in rows.values() if row["strain"] <= 1]
    if not kept:
        raise ClientError("this machine is too busy to calibrate: not one stream was read in time")
    return Limits(
        machine=Machine.this(most_workers(workers)),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        chunks_per_s=max(row["chunks_per_s"] for row in kept),
        streams=max(row["streams"] for row in kept),
        rows=[rows[streams] for streams in sorted(rows)],
    )


def _row(streams: int, workers: int | None) -> dict[str, Any]:
    """Measure one number of streams, on a server of its own."""
    workload = SyntheticWorkload.exact(64, OSL)
    requests = REQUESTS_PER_STREAM * streams
    load = ClosedLoop(streams, requests=requests)
    server, client = known_server_process(BEHAVIOUR), LoadClient(workers, timeout_s=120.0)
    with server as (base_url, served), client:
        target = client.probe(Target(base_url, BEHAVIOUR.model), workload)
        measured = client.measure(target, workload, load)
    truth = truth_summary(served[-requests:])
    point = point_metrics(measured.traces, measured.health, workload, load, gpus=1)
    row = {
        "streams": streams,
        "ttft_ms": point["ttft_ms"]["p50"],
        "true_ttft_ms": truth["ttft_ms"]["p50"],
        "tpot_ms": point["tpot_ms"]["p50"],
        "true_tpot_ms": truth["tpot_ms"]["p50"],
        "in_server": truth["concurrency_mean"],
        "lag_p99_ms": measured.health.lag_p99_ms,
        "busy": measured.health.busy,
        "chunks_per_s": point["client"]["chunks_per_s"],
        "cpu_us_per_chunk": 1e6
        * measured.health.cpu_s
        / max(1, sum(len(each.chunk_ns) for each in measured.traces if not each.warm_up)),
        "memory_mb": measured.health.memory_mb,
        "failed": point["failed"],
    }
    return row | {"strain": _strain(row)}


def _strain(row: dict[str, Any]) -> float:
    """Return how far the worst error uses its bar up: 1 at the bar."""
    if row["failed"] or None in row.values():
        return 1e9
    strains = (
        abs(row["ttft_ms"] - row["true_ttft_ms"]) / TTFT_BAR_MS,
        abs(row["tpot_ms"] / row["true_tpot_ms"] - 1) / TPOT_BAR,
        (1 - row["in_server"] / row["streams"]) / DELIVERED_BAR,
        row["lag_p99_ms"] / LAG_BAR_MS,
    )
    return float(max(strains))
