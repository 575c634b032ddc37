"""The search for the first bad revision: calibration, decisions, controls, the answer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from upcurve.frontier.sequential import (
    Estimate,
    difference,
    drift,
    evidence_of_difference,
    noise,
    odds_of_bad,
    threshold,
    visible_difference,
)

LEAST_ROUNDS = 3
"""Measurements of good and bad before anything is concluded from them."""

LEAST_RUNS = 2
"""Measurements of any other revision: a single one can be an accident."""

CONTROL_EVERY = 3
"""Measurements of other revisions to one of good or bad: it guards against drift, and a long
decision needs to know them better too."""

CONTROL_CONFIDENCE = 0.99
"""Of drift, and of a revision that is like neither: both are looked at after every decision."""

Verdict = Literal["good", "bad", "undecided", "skipped"]

Measure = Callable[[int], float]
"""Position of a revision -> one more measurement of it, positive; raises `RevisionError`."""


class RevisionError(Exception):
    """A revision that does not build, does not start or gives no figures."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What measuring good and bad in turns has shown."""

    differs: bool
    """Whether they differ, at the error that the calibration may have."""
    difference: Estimate
    """log(bad / good) with its 95 % interval."""
    noise: float
    """Standard deviation of the log of one measurement."""
    rounds: int
    """Measurements of each."""
    visible: float
    """|log(bad / good)| that so many rounds show in 19 of 20 cases."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one revision."""

    position: int
    verdict: Verdict
    runs: int
    from_good: float | None
    """log(revision / good); None where it was never measured."""
    odds: float | None
    """exp of its absolute value is how many times likelier the verdict is than its opposite."""
    error: float
    """The most that this decision may be wrong with."""
    like_neither: bool = False
    """Whether its speed is significantly off both good's and bad's."""
    reason: str = ""
    """Why it was skipped."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Where the metric moved: after `last_good`, at or before `first_bad`."""

    calibration: Calibration
    decisions: tuple[Decision, ...]
    last_good: int
    first_bad: int
    move: Estimate
    """log(first bad / last good) with its 95 % interval."""
    drift: Estimate | None
    """Of the controls since the calibration, in logs, 99 %; None without controls."""
    runs: int
    """Measurements in all."""

    @property
    def found(self) -> bool:
        """Whether one revision is named."""
        return self.calibration.differs and self.first_bad - self.last_good == 1


class Watcher(Protocol):
    """Who is told how the search goes on."""

    def calibrated(self, calibration: Calibration) -> None:
        """Good and bad are measured."""

    def decided(self, decision: Decision) -> None:
        """A revision has its verdict."""

    def drifted(self, estimate: Estimate) -> None:
        """The controls lie off the calibration."""


def bisect(last: int, measure: Measure, *, error: float, max_runs: int, watcher: Watcher) -> Answer:
    """Find the first bad one of the revisions 1 to `last`.

    The whole answer is wrong with at most `error`, if one revision made the whole move: where good
    and bad are equal the calibration alone can err, where they differ the decisions alone, in equal
    shares for as many as there can still be. A revision that is undecided after `max_runs` is left
    out, as a skipped one. What is asked for depends on the measurements alone, so that a search
    that is given the same ones again goes the same way.

    Args:
        last: position of the bad revision; 0 is the good one, those between them are in order.
        measure: gives one more measurement.
        error: of the whole answer.
        max_runs: measurements of one revision at most; good and bad each have so many for the
            calibration.
        watcher: who is told.

    Raises:
        RevisionError: good or bad cannot be measured.
    """
    return _Search(last, measure, error, max_runs, watcher).run()


class _Search:
    def __init__(
        self, last: int, measure: Measure, error: float, max_runs: int, watcher: Watcher
    ) -> None:
        self._last = last
        self._measure = measure
        self._error = error
        self._max_runs = max_runs
        self._watcher = watcher
        self._logs: dict[int, list[float]] = {0: [], last: []}
        self._decisions: list[Decision] = []
        self._drift: Estimate | None = None
        self._since_control = 0
        self._controls = 0

    def run(self) -> Answer:
        calibration = self._calibrate()
        self._rounds = calibration.rounds
        self._watcher.calibrated(calibration)
        good, bad = self._search() if calibration.differs else (0, self._last)
        others = [logs for at, logs in self._logs.items() if at not in (good, bad) and logs]
        move = difference(self._logs[good], self._logs[bad], others=others)
        runs = sum(map(len, self._logs.values()))
        decisions = tuple(self._decisions)
        return Answer(calibration, decisions, good, bad, move, self._drift, runs)

    def _calibrate(self) -> Calibration:
        differs = False
        good, bad = self._logs[0], self._logs[self._last]
        for index in range(self._max_runs):
            turn = (0, self._last)
            for position in turn if index % 2 == 0 else reversed(turn):
                self._take(position)
            if index + 1 < LEAST_ROUNDS:
                continue
            differs = evidence_of_difference(good, bad) >= math.log(1 / self._error)
            if differs or self._hopeless():
                break
        deviation, _ = noise([good, bad])
        visible = visible_difference(deviation, len(good), error=self._error)
        return Calibration(differs, difference(good, bad), deviation, len(good), visible)

    def _hopeless(self) -> bool:
        """Whether the difference is too small to be shown by all the runs that there may be."""
        good, bad = self._logs[0], self._logs[self._last]
        deviation, _ = noise([good, bad])
        least = visible_difference(deviation, self._max_runs, error=self._error, power=0.5)
        found = difference(good, bad)
        return max(abs(found.low), abs(found.high)) < least

    def _search(self) -> tuple[int, int]:
        """Return the last good and the first bad position."""
        good, bad, left_out = 0, self._last, set()
        budget = self._error
        while open_positions := [at for at in range(good + 1, bad) if at not in left_out]:
            middle = (good + bad) / 2
            position = min(open_positions, key=lambda at: (abs(at - middle), at))
            share = budget / math.ceil(math.log2(bad - good))
            decision = self._decide(position, share)
            self._decisions.append(decision)
            self._watcher.decided(decision)
            if decision.verdict == "good":
                good, budget = position, budget - share
            elif decision.verdict == "bad":
                bad, budget = position, budget - share
            else:
                left_out.add(position)
        return good, bad

    def _decide(self, position: int, error: float) -> Decision:
        good, bad = self._logs[0], self._logs[self._last]
        runs: list[float] = []
        self._logs[position] = runs
        odds = None
        verdict: Verdict = "undecided"
        try:
            while len(runs) < self._max_runs and verdict == "undecided":
                if self._since_control == CONTROL_EVERY:
                    self._control()
                self._take(position)
                self._since_control += 1
                if len(runs) >= LEAST_RUNS:
                    odds = odds_of_bad(good, bad, runs)
                    if abs(odds) >= threshold(error):
                        verdict = "bad" if odds > 0 else "good"
        except RevisionError as problem:
            from_good = difference(good, runs).value if runs else None
            return Decision(
                position, "skipped", len(runs), from_good, None, error, reason=str(problem)
            )
        both = [
            difference(end, runs, others=[other], confidence=CONTROL_CONFIDENCE)
            for end, other in ((good, bad), (bad, good))
        ]
        neither = all(each.excludes_zero for each in both)
        return Decision(position, verdict, len(runs), both[0].value, odds, error, neither)

    def _control(self) -> None:
        """Measure good or bad once more, in turns, and hold it against the calibration."""
        position = self._last if self._controls % 2 else 0
        self._since_control, self._controls = 0, self._controls + 1
        with contextlib.suppress(RevisionError):
            self._take(position)
        ends = [self._logs[0], self._logs[self._last]]
        before = [logs[: self._rounds] for logs in ends]
        after = [logs[self._rounds :] for logs in ends]
        if any(after):
            self._drift = drift(before, after, confidence=CONTROL_CONFIDENCE)
            if self._drift.excludes_zero:
                self._watcher.drifted(self._drift)

    def _take(self, position: int) -> None:
        self._logs[position].append(math.log(self._measure(position)))
