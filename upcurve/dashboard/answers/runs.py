"""Runs: the list, and one of them whole."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from upcurve.dashboard.catalogue import Catalogue
from upcurve.dashboard.contract.questions import RunQuestion, RunsQuestion
from upcurve.dashboard.contract.runs import Log, RunDetail, RunItem, RunList, RunPoint
from upcurve.dashboard.lineage import link
from upcurve.dashboard.reader import NotFoundError, Reader
from upcurve.records.browse import Figures, RunSummary, figures, run_details
from upcurve.records.folder import log_tail


def runs(reader: Reader, question: RunsQuestion) -> RunList:
    """Answer `runs`."""
    catalogue = reader.catalogue()
    group = catalogue.group(question.group) if question.group is not None else None
    words = question.q.lower()
    found = []
    for run in reversed(catalogue.runs.values()):
        text = f"{run.id} {run.series} {run.model} {run.hardware} {run.engine} {run.engine_version}"
        of_group = group is None or (
            run.model == group.model
            and any(
                (each.isl, each.osl) == (group.isl, group.osl)
                for each in catalogue.measured.get(run.id, ())
            )
        )
        if (
            of_group
            and (not question.series or run.series in question.series)
            and question.status in (None, run.status)
            and words in text.lower()
        ):
            found.append(run)
    shown = found[question.offset : question.offset + question.limit]
    return run_list(catalogue, shown, total=len(found), offset=question.offset)


def run_list(
    catalogue: Catalogue, shown: Sequence[RunSummary], *, total: int, offset: int = 0
) -> RunList:
    """Return some runs of so many."""
    return RunList(total=total, offset=offset, items=[run_item(catalogue, each) for each in shown])


def run_item(catalogue: Catalogue, run: RunSummary) -> RunItem:
    """Return a run as lists show it."""
    return RunItem(
        id=run.id,
        series=run.series,
        source=run.source,
        status=run.status,
        note=run.note,
        model=run.model,
        hardware=run.hardware,
        precision=run.precision,
        engine=run.engine,
        engine_version=run.engine_version,
        started_at=moment(run.started_at),
        ended_at=moment(run.ended_at) if run.ended_at else None,
        points=sum(each.points for each in catalogue.measured.get(run.id, ())),
        change=link(run.change) if run.change else None,
    )


def run_detail(reader: Reader, run_id: str, question: RunQuestion) -> RunDetail:
    """Answer `runs/{id}`.

    Raises:
        NotFoundError: there is no such run.
    """
    catalogue = reader.catalogue()
    run, details = catalogue.runs.get(run_id), run_details(reader.store, run_id)
    if run is None or details is None:
        raise NotFoundError("run", f"there is none {run_id!r}", "see /api/v1/runs for those")
    log = log_tail(reader.store.root, run_id, question.log_bytes)
    return RunDetail(
        run=run_item(catalogue, run),
        fingerprint=run.fingerprint,
        engine_commit=run.engine_commit,
        image=run.image,
        harness_version=details.harness_version,
        recipe=details.recipe,
        command=_command(details.recipe),
        host=details.host,
        gpus=details.gpus,
        software=details.software,
        points=[run_point(each) for each in figures(reader.store, [run_id], detailed=True)],
        log=Log(text=log[0], shown=log[1], bytes=log[2]) if log else None,
    )


def run_point(each: Figures) -> RunPoint:
    """Return a point as its run shows it."""
    return RunPoint(
        id=each.point.id or 0,
        isl=each.isl,
        osl=each.osl,
        layout=each.point.place.layout,
        tp=each.point.tp,
        gpus=each.point.gpus,
        concurrency=each.point.concurrency,
        repeat=each.point.repeat,
        measured_at=moment(each.measured_at),
        tput_per_gpu=each.point.tput_per_gpu,
        input_tput_per_gpu=each.input_tput_per_gpu,
        output_tput_per_gpu=each.output_tput_per_gpu,
        interactivity=each.point.interactivity,
        tpot_ms=each.tpot_ms,
        ttft_ms=each.ttft_ms,
        e2e_ms=each.e2e_ms,
        requests=each.requests,
        failed=each.failed,
        watts_per_gpu=each.watts_per_gpu,
        accuracy=each.accuracy,
        timeline=each.trace is not None,
    )


def moment(at: datetime) -> str:
    """Return a time in UTC as ISO 8601."""
    return at.astimezone(UTC).isoformat()


def _command(recipe: Mapping[str, Any]) -> str | None:
    """Return the launch as one could type it; placeholders stay as the recipe has them."""
    engine = recipe.get("engine")
    command = engine.get("command") if isinstance(engine, Mapping) else None
    if not isinstance(command, Sequence) or isinstance(command, str) or not command:
        return None
    assert isinstance(engine, Mapping)
    settings = [f"{name}={value}" for name, value in (engine.get("env") or {}).items()]
    words = (["env", *settings] if settings else []) + [str(word) for word in command]
    return " ".join(word if "{" in word else shlex.quote(word) for word in words)
