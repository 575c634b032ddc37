"""What a record keeps of an evaluation at one operating point, and what a baseline's record says.

The JSON object has task, version, n, metric, score, interval (Wilson, 95 %), passed (null without a
gate), why, answers (file below the store's folder), and what the gate was.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from upcurve.accuracy.answers import read_answers
from upcurve.accuracy.evaluation import Evaluation, Setting
from upcurve.accuracy.gate import Gate, Reference, Verdict
from upcurve.accuracy.scoring import METRICS, Metric
from upcurve.accuracy.task import Task
from upcurve.errors import InputError
from upcurve.load.target import Endpoint
from upcurve.records.reader import StoreReader

FOLDER = "answers"
"""Below the store's folder, beside traces and logs."""


def outcome(
    found: Evaluation,
    task: Task,
    setting: Setting,
    *,
    endpoint: Endpoint,
    metric: Metric,
    gate: Gate | None,
    reference: Reference | None,
    answers: str,
    same_process: bool | None,
) -> dict[str, Any]:
    """Return the JSON object that a point's record keeps.

    Args:
        found: the answers, judged.
        task: what was asked.
        setting: how.
        endpoint: completions or chat.
        metric: which score the gate is about.
        gate: what the score has to be; None: it is told, not judged.
        reference: what the baseline of the gate answered, where it has one.
        answers: their file, below the store's folder.
        same_process: whether the point was measured on the very process that answered; None where
            nobody can say.
    """
    verdict = None if gate is None else gate.judge(found, metric, reference)
    if verdict is not None and found.failed:
        said = f" ({found.problem})" if found.problem else ""
        why = f"{found.failed:,} of {found.n:,} items got no answer{said}; {verdict.why}"
        verdict = Verdict(False, why, verdict.facts)
    low, high = found.interval(metric)
    tokens = found.prompt_tokens
    return {
        **task.facts(),
        "metric": metric,
        "score": found.score(metric),
        "interval": [low, high],
        "scores": {each: found.score(each) for each in METRICS},
        "right": {each: found.count(each) for each in METRICS},
        "failed": found.failed,
        "problem": found.problem,
        "truncated": found.truncated,
        "concurrency": setting.concurrency,
        "endpoint": endpoint,
        "context": setting.context,
        "prompt_tokens_mean": tokens and tokens[0],
        "prompt_tokens_max": tokens and tokens[1],
        "same_process": same_process,
        "passed": None if verdict is None else verdict.passed,
        "why": "no gate was given" if verdict is None else verdict.why,
        **({} if verdict is None else verdict.facts),
        "answers": answers,
        "evaluated_at": datetime.now(UTC).isoformat(),
    }


def describe(found: Mapping[str, Any]) -> str:
    """Return an outcome in one line."""
    words = {True: "passed", False: "FAILED", None: "not judged"}[found["passed"]]
    low, high = found["interval"]
    return (
        f"{found['task']} {found['metric']} {found['score']:.4f} "
        f"[{low:.4f}, {high:.4f}] of {found['n']:,}: {words}, {found['why']}"
    )


def reference_of(
    store: StoreReader,
    series: str,
    task: Task,
    setting: Setting,
    endpoint: Endpoint,
    metric: Metric,
) -> Reference | None:
    """Return what a series answered to the same prompts; None where the store has nothing.

    Of several evaluations the nearest concurrency counts, then the latest.

    Raises:
        InputError: the store has no such series.
    """
    same = {**task.facts(), "endpoint": endpoint, "context": setting.context}
    known = [
        accuracy
        for row in store.rows([series])
        if (accuracy := row["accuracy"])
        and isinstance(accuracy.get("right"), dict)
        and all(accuracy.get(key) == value for key, value in same.items())
        and not accuracy.get("failed")
    ]
    if not known:
        return None
    best = min(known, key=lambda each: abs(each["concurrency"] - setting.concurrency))
    latest = max(
        (each for each in known if each["concurrency"] == best["concurrency"]),
        key=lambda each: str(each["evaluated_at"]),
    )
    return Reference(
        series,
        _judged(store.root / FOLDER / Path(latest["answers"]).name, task, metric),
        latest["right"][metric],
        latest["n"],
        latest["concurrency"],
    )


def _judged(path: Path, task: Task, metric: Metric) -> dict[str, bool] | None:
    """Return item -> whether it was right; None where the file is gone or lacks items."""
    if not path.is_file():
        return None
    try:
        answers = read_answers(path)
    except InputError:
        return None
    if any(item.id not in answers for item in task.items):
        return None
    return Evaluation.of(task, answers).right[metric]
