"""What `upcurve bisect` says: lines as it goes, the answer in words, as a table, as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import click
from rich.table import Table

from upcurve.accuracy.evaluation import Asked
from upcurve.frontier.sequential import Estimate
from upcurve.load.verdict import FEW_SAMPLES
from upcurve.sweep.bisection import Answer, Calibration, Decision
from upcurve.sweep.gate import GateOutcome
from upcurve.sweep.plan import Launch
from upcurve.sweep.result import Failure, Measured
from upcurve.sweep.revision import Revision
from upcurve.sweep.revision_runs import RevisionRuns


class Lines:
    """A line on stderr for each event of the search and of its launches."""

    def __init__(self, revisions: Sequence[Revision]) -> None:
        self._revisions = revisions
        self.runs: RevisionRuns | None = None

    def planned(self, launches: Sequence[Launch]) -> None:
        """Say nothing: how many there are is not known ahead."""

    def launching(self, launch: Launch, run_id: str) -> None:
        """Say which revision is launched."""
        self._say(f"{_place(launch)}: launching the engine, run {run_id}")

    def ready(self, launch: Launch, seconds: float) -> None:
        """Say how long the engine took."""
        self._say(f"{_place(launch)}: ready after {seconds:.1f} s")

    def measuring(self, launch: Launch, concurrency: int) -> None:
        """Say nothing: it is said once it is measured."""

    def request_ended(self, launch: Launch, ended: int, of: int) -> None:
        """Say nothing: a line per request is too much."""

    def measured(self, measured: Measured) -> None:
        """Say what the point gave, and what a reader of it must know."""
        point = measured.point
        place = f"{_place(measured.launch)}, concurrency {point.concurrency}"
        self._say(
            f"{place}: {point.tput_per_gpu:.1f} tok/s/GPU, {point.interactivity:.2f} tok/s/user"
        )
        for said in point.result.get("warnings", ()):
            if said != FEW_SAMPLES:
                self._say(f"warning: {place}: {said}")

    def evaluating(self, launch: Launch, concurrency: int, state: Asked) -> None:
        """Say nothing: a revision is not gated."""

    def evaluated(self, outcome: GateOutcome) -> None:
        """Say nothing: a revision is not gated."""

    def failed(self, failure: Failure) -> None:
        """Say what failed; the revision is then skipped."""
        self._say(f"error: {_place(failure.launch)}: {failure.problem}")

    def calibrated(self, calibration: Calibration) -> None:
        """Say what good and bad have shown."""
        self._say(_calibration(calibration))

    def decided(self, decision: Decision) -> None:
        """Say the verdict, and let the checkout go."""
        revision = self._revisions[decision.position]
        reason = f": {decision.reason}" if decision.reason else f" after {decision.runs} runs"
        self._say(f"{revision.short} is {decision.verdict}{reason}")
        if self.runs:
            self.runs.release(decision.position)

    def drifted(self, estimate: Estimate) -> None:
        """Say that the machine is not what it was."""
        self._say(f"warning: {_drift(estimate)}")

    def _say(self, line: str) -> None:
        click.echo(f"upcurve: {line}", err=True)


def _place(launch: Launch) -> str:
    return f"{launch.recipe.series}, run {launch.round + 1}"


def words(answer: Answer, revisions: Sequence[Revision], error: float) -> list[str]:
    """Return the answer and what it rests on, in lines."""
    lines = [_calibration(answer.calibration)]
    if not answer.calibration.differs:
        return [f"No difference: {lines[0]}"]
    candidates = revisions[answer.last_good + 1 : answer.first_bad + 1]
    if answer.found:
        lines.append(f"First bad commit: {candidates[0].sha} {candidates[0].subject}")
    else:
        lines.append("No single commit can be named; the first bad one is among:")
        lines += [f"  {each.sha} {each.subject}" for each in candidates]
    last_good = revisions[answer.last_good].short
    lines.append(f"Its move over {last_good}: {_percent_with_interval(answer.move)}.")
    total = answer.calibration.difference.value
    if not answer.move.low <= total <= answer.move.high:
        lines.append(
            f"Good to bad is {_percent(total)}, which is outside that interval: other commits "
            "between them move it too."
        )
    neither = [revisions[each.position].short for each in answer.decisions if each.like_neither]
    if neither:
        listed = ", ".join(neither)
        lines.append(f"Like neither good nor bad: {listed}. There may be more than one move.")
    if answer.drift is not None and answer.drift.excludes_zero:
        lines.append(f"Warning: {_drift(answer.drift)}")
    lines.append(
        f"{answer.runs} runs; wrong in at most {error:.3g} of cases, if one commit made the move "
        "and the machine stayed as it was."
    )
    return lines


def _calibration(calibration: Calibration) -> str:
    spread = f"runs scatter by {_percent(calibration.noise)[1:]}"
    measured = f"bad over good {_percent_with_interval(calibration.difference)}; {spread}"
    if calibration.differs:
        return f"{measured} ({calibration.rounds} runs of each)."
    visible = (
        f"a difference of {_percent(calibration.visible)[1:]} would have been seen in 19 "
        "of 20 cases"
    )
    if math.isinf(calibration.visible):
        visible = "so few runs can show no difference; give a higher --max-runs"
    return f"{measured}; with {calibration.rounds} runs of each, {visible}."


def _drift(estimate: Estimate) -> str:
    shift = f"{_percent(estimate.value)} ({_percent(estimate.low)} to {_percent(estimate.high)})"
    return (
        f"the machine drifted: good and bad, measured again, moved by {shift} since the "
        "calibration. Run again on a quiet machine, with another series."
    )


def decisions_table(answer: Answer, revisions: Sequence[Revision]) -> Table:
    """Return the decisions as a table, in their order."""
    table = Table()
    for head in ("commit", "subject", "verdict"):
        table.add_column(head, overflow="fold")
    for head in ("runs", "over good", "odds"):
        table.add_column(head, justify="right", no_wrap=True)
    for each in answer.decisions:
        revision = revisions[each.position]
        reason = f" ({each.reason.partition(';')[0]})" if each.reason else ""
        odds = "" if each.odds is None else f"{math.exp(min(abs(each.odds), 50)):.3g} : 1"
        over = "" if each.from_good is None else _percent(each.from_good)
        table.add_row(
            revision.short, revision.subject, each.verdict + reason, str(each.runs), over, odds
        )
    return table


def json_object(answer: Answer, revisions: Sequence[Revision]) -> dict[str, Any]:
    """Return the answer as the object that `--json` prints."""
    calibration = answer.calibration
    candidates = revisions[answer.last_good + 1 : answer.first_bad + 1]
    kind = "found" if answer.found else "range" if calibration.differs else "no_difference"
    visible = calibration.visible
    return {
        "answer": kind,
        "first_bad": _named(candidates[0]) if answer.found else None,
        "candidates": [_named(each) for each in candidates],
        "last_good": _named(revisions[answer.last_good]),
        "move": _ratio(answer.move),
        "calibration": {
            "differs": calibration.differs,
            "bad_over_good": _ratio(calibration.difference),
            "noise": calibration.noise,
            "rounds": calibration.rounds,
            "visible": None if math.isinf(visible) else math.expm1(visible),
        },
        "decisions": [
            _named(revisions[each.position])
            | {
                "verdict": each.verdict,
                "runs": each.runs,
                "over_good": None if each.from_good is None else math.exp(each.from_good),
                "log_odds_of_bad": each.odds,
                "error": each.error,
                "like_neither": each.like_neither,
                "reason": each.reason or None,
            }
            for each in answer.decisions
        ],
        "drift": answer.drift and _ratio(answer.drift),
        "drifted": answer.drift is not None and answer.drift.excludes_zero,
        "runs": answer.runs,
    }


def _named(revision: Revision) -> dict[str, str]:
    return {"commit": revision.sha, "subject": revision.subject}


def _ratio(estimate: Estimate) -> dict[str, Any]:
    interval = [math.exp(estimate.low), math.exp(estimate.high)]
    return {"ratio": math.exp(estimate.value), "interval": interval}


def _percent(log: float) -> str:
    return f"{math.expm1(log):+.2%}".replace("%", " %")


def _percent_with_interval(estimate: Estimate) -> str:
    return (
        f"{_percent(estimate.value)} (95 %: {_percent(estimate.low)} to {_percent(estimate.high)})"
    )
