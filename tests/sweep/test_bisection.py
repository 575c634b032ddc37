"""The search on simulated measurements whose truth is known."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

import pytest

from upcurve.frontier.sequential import Estimate
from upcurve.sweep.bisection import Answer, Calibration, Decision, RevisionError, bisect


class Log:
    def __init__(self) -> None:
        self.events: list[object] = []

    def calibrated(self, calibration: Calibration) -> None:
        self.events.append("calibrated")

    def decided(self, decision: Decision) -> None:
        self.events.append((decision.position, decision.verdict))

    def drifted(self, estimate: Estimate) -> None:
        self.events.append("drifted")


def simulated(
    levels: list[float], noise: float, seed: int, broken: tuple[int, ...] = ()
) -> Callable[[int], float]:
    draw = random.Random(seed)

    def measure(position: int) -> float:
        if position in broken:
            raise RevisionError("it does not build")
        return 1000 * levels[position] * math.exp(draw.gauss(0, noise))

    return measure


def step(culprit: int, of: int = 12, ratio: float = 0.97) -> list[float]:
    return [1.0 if position < culprit else ratio for position in range(of + 1)]


def search(measure: Callable[[int], float], last: int = 12, **options: float) -> Answer:
    error, max_runs = options.get("error", 0.05), int(options.get("max_runs", 30))
    return bisect(last, measure, error=error, max_runs=max_runs, watcher=Log())


def test_a_regression_of_3_percent_under_2_percent_noise_is_found() -> None:
    ends: Counter[str] = Counter()
    covered = 0
    for seed in range(200):
        culprit = 1 + seed % 12
        answer = search(simulated(step(culprit), 0.02, seed))
        right = answer.last_good < culprit <= answer.first_bad
        ends["wrong" if not right else "found" if answer.found else "range"] += 1
        covered += answer.move.low <= math.log(0.97) <= answer.move.high
    # Two standard errors over what is stated; most of them name the commit.
    assert ends["wrong"] <= 200 * 0.05 + 2 * math.sqrt(200 * 0.05)
    assert ends["found"] >= 180
    assert covered >= 180


def test_equal_ends_are_said_to_be_equal_with_what_could_have_been_seen() -> None:
    found = 0
    for seed in range(100):
        answer = search(simulated([1.0] * 13, 0.02, seed))
        found += answer.calibration.differs
        if not answer.calibration.differs:
            assert not answer.found
            assert answer.decisions == ()
            assert 0.01 < answer.calibration.visible < 0.08
            assert answer.runs == 2 * answer.calibration.rounds
    assert found <= 5


def test_a_large_move_takes_the_fewest_runs() -> None:
    answer = search(simulated(step(7, ratio=0.5), 0.01, 0))
    assert answer.found
    assert answer.first_bad == 7
    assert answer.calibration.rounds == 4
    assert all(each.runs == 2 for each in answer.decisions)
    assert len(answer.decisions) <= math.ceil(math.log2(12))
    assert sum(each.error for each in answer.decisions) <= 0.05


def test_neighbours_need_no_decision() -> None:
    answer = search(simulated([1.0, 0.8], 0.01, 0), last=1)
    assert answer.found
    assert (answer.last_good, answer.first_bad, answer.decisions) == (0, 1, ())


def test_an_improvement_is_found_as_well() -> None:
    answer = search(simulated(step(5, ratio=1.2), 0.02, 0))
    assert (answer.found, answer.first_bad) == (True, 5)
    assert answer.move.low > 0


def test_broken_revisions_are_skipped_and_beside_the_move_leave_a_range() -> None:
    answer = search(simulated(step(7, ratio=0.8), 0.01, 0, broken=(6, 2)))
    assert [each.verdict for each in answer.decisions if each.position in (2, 6)] == ["skipped"]
    assert (answer.last_good, answer.first_bad, answer.found) == (5, 7, False)
    answer = search(simulated(step(7, ratio=0.8), 0.01, 0, broken=(3, 10)))
    assert (answer.first_bad, answer.found) == (7, True)


def test_bad_that_is_broken_is_an_error() -> None:
    with pytest.raises(RevisionError, match="does not build"):
        search(simulated(step(7), 0.01, 0, broken=(12,)))


def test_what_is_not_decided_is_not_guessed() -> None:
    # Position 6 lies half-way in between: more runs do not help.
    levels = [1.0] * 6 + [0.99 * 0.9**0.5] + [0.9] * 6
    levels[6] = 0.9**0.5
    answer = search(simulated(levels, 0.02, 5), max_runs=12)
    decided = {each.position: each for each in answer.decisions}
    assert decided[6].verdict == "undecided"
    assert decided[6].runs == 12
    assert decided[6].like_neither
    assert (answer.last_good, answer.first_bad, answer.found) == (5, 7, False)


def test_a_machine_that_drifts_is_noticed() -> None:
    measure, calls = simulated(step(7, ratio=0.8), 0.01, 0), [0]

    def drifting(position: int) -> float:
        calls[0] += 1
        return measure(position) * (0.9 if calls[0] > 8 else 1.0)

    log = Log()
    answer = bisect(12, drifting, error=0.05, max_runs=30, watcher=log)
    assert "drifted" in log.events
    assert answer.drift is not None
    assert answer.drift.high < 0
    steady = search(simulated(step(7, ratio=0.8), 0.01, 0))
    assert steady.drift is not None
    assert not steady.drift.excludes_zero


def test_the_same_measurements_give_the_same_search() -> None:
    asked: list[list[int]] = [[], []]
    for order in asked:
        measure = simulated(step(4), 0.02, 11)

        def noted(position: int) -> float:
            order.append(position)  # noqa: B023 - called within the turn
            return measure(position)  # noqa: B023

        search(noted)
    assert asked[0] == asked[1]
    assert asked[0][:6] == [0, 12, 12, 0, 0, 12]
