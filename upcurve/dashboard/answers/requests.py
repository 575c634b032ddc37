"""The requests of one measured point in time: due, sent, first and last token."""

from __future__ import annotations

from typing import Any

import pyarrow

from upcurve.dashboard.answers.runs import run_point
from upcurve.dashboard.contract.questions import TimelineQuestion
from upcurve.dashboard.contract.runs import Load, Request, Timeline
from upcurve.dashboard.reader import NotFoundError, Reader
from upcurve.load.telemetry.server import ServerMetrics
from upcurve.records.browse import figures, run_of_point

COLUMNS = [
    "index", "stream", "warm_up", "scheduled_ns", "sent_ns", "first_content_ns", "last_ns",
    "ended_ns", "input_tokens", "output_tokens", "failure",
]  # fmt: skip


def timeline(reader: Reader, point_id: int, question: TimelineQuestion) -> Timeline:
    """Answer `points/{id}/timeline`.

    Raises:
        NotFoundError: there is no such point, or its requests were not kept.
    """
    run_id = run_of_point(reader.store, point_id)
    if run_id is None:
        raise NotFoundError("point", f"there is none {point_id}", "see /api/v1/runs/ID for those")
    point = next(
        each for each in figures(reader.store, [run_id], detailed=True) if each.point.id == point_id
    )
    if point.trace is None or not (reader.store.root / point.trace).is_file():
        raise NotFoundError("point", "its requests were not kept", "choose one of a sweep")
    table = reader.store.trace(point_id)
    if not set(COLUMNS) <= set(table.column_names):
        mend = "choose a point that this client measured"
        raise NotFoundError("point", "its trace has other columns", mend)
    table = table.select(COLUMNS).sort_by([("sent_ns", "ascending")])
    start = table["sent_ns"][0].as_py() if table.num_rows else 0
    shown = table.slice(question.offset, question.limit).to_pylist()
    return Timeline(
        point=run_point(point),
        run=run_id,
        series=reader.catalogue().runs[run_id].series,
        total=table.num_rows,
        offset=question.offset,
        requests=[_request(row, start) for row in shown],
        load=_load(reader.store.telemetry(point_id), start),
    )


def _request(row: dict[str, Any], start: int) -> Request:
    return Request(
        index=row["index"],
        stream=row["stream"],
        warm_up=row["warm_up"],
        scheduled=_ms(row["scheduled_ns"] - start),
        sent=_ms(row["sent_ns"] - start),
        first=_ms(row["first_content_ns"] - start) if row["first_content_ns"] else None,
        last=_ms(row["last_ns"] - start) if row["last_ns"] else None,
        ended=_ms(row["ended_ns"] - start),
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        failure=row["failure"],
    )


def _load(telemetry: dict[str, pyarrow.Table], start: int) -> Load | None:
    if "server" not in telemetry:
        return None
    found = ServerMetrics.from_table(telemetry["server"]).requests()
    if not found:
        return None
    return Load(
        at=[_ms(at - start) for at, _, _ in found],
        running=[running for _, running, _ in found],
        waiting=[waiting for _, _, waiting in found],
    )


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)
