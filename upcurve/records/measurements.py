"""Measurements: what flat rows of a store say of points, as a build's values are read from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from upcurve.frontier.build_values import Measurement
from upcurve.frontier.point import Point
from upcurve.records.facts import facts
from upcurve.records.layout import LAYOUT


def measurements(rows: Iterable[Mapping[str, Any]]) -> Iterator[Measurement]:
    """Yield the measurements of flat rows (`StoreReader.rows`), in the order of time.

    Repeats are numbered over all runs of one fingerprint, as `StoreReader.points` does.
    """
    taken: dict[Any, set[int]] = defaultdict(set)
    for row in sorted(rows, key=lambda each: each["measured_on"]):
        where = {name: row[name] for name in LAYOUT}
        used = taken[*where.values(), row["concurrency"], row["fingerprint"]]
        repeat = max(used) + 1 if row["repeat"] in used else row["repeat"]
        used.add(repeat)
        known = facts(row["requests"], row["failed"], row["result"], row["accuracy"])
        point = Point(
            row["interactivity"],
            row["tput_per_gpu"],
            concurrency=row["concurrency"],
            repeat=repeat,
            facts=known,
            **where,
        )
        power = watts_per_gpu(row)
        yield Measurement(point, row["ttft_ms"], row["tpot_ms"], power, row["fingerprint"])


def watts_per_gpu(row: Mapping[str, Any]) -> float | None:
    """Return the mean power of one GPU that a point was recorded with, in W.

    Energy of all watched GPUs for one output token, times output tokens per second and GPU; None
    where no power was recorded, where its two sources disagree, or without output throughput.
    """
    power = (row["result"] or {}).get("power") or {}
    totals = power.get("totals") or {}
    joules, output = totals.get("joules_per_output_token"), row["output_tput_per_gpu"]
    if not (joules and output and totals.get("energy_valid")):
        return None
    return float(joules * output)
