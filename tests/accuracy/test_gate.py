"""What passes, what does not, and what is said about it."""

from __future__ import annotations

import pytest

from upcurve.accuracy.evaluation import Evaluation
from upcurve.accuracy.gate import Minimum, NonInferiority, Reference
from upcurve.errors import InputError


def evaluation(right, n, failed=0, start=0):
    judged = {str(place): start <= place < start + right for place in range(n)}
    return Evaluation(n, {"strict": judged, "flexible": judged}, failed, None, 0, None)


def reference(right, n, start=0, answers=True):
    judged = {str(place): start <= place < start + right for place in range(n)}
    return Reference("feb", judged if answers else None, right, n, 16)


@pytest.mark.parametrize(("right", "passed"), [(899, False), (900, True), (1000, True), (0, False)])
def test_a_minimum_is_reached_or_not(right, passed):
    verdict = Minimum(0.9).judge(evaluation(right, 1000), "strict", None)
    assert verdict.passed is passed
    assert ("at least" if passed else "below") in verdict.why
    assert verdict.facts == {"minimum": 0.9}


def test_the_same_answers_are_not_inferior():
    verdict = NonInferiority("feb", 0.02).judge(
        evaluation(900, 1000), "strict", reference(900, 1000)
    )
    assert verdict.passed
    assert verdict.facts["paired"] is True
    assert (verdict.facts["difference"], verdict.facts["power"]) == (0, 1)


def test_a_loss_beyond_the_margin_fails_and_pairing_tells_more():
    gate = NonInferiority("feb", 0.02)
    # 960 -> 957 of 1,000: three items lost, none gained.
    paired = gate.judge(evaluation(957, 1000), "strict", reference(960, 1000))
    alone = gate.judge(evaluation(957, 1000), "strict", reference(960, 1000, answers=False))
    assert (paired.passed, alone.passed) == (True, True)
    assert paired.facts["difference_interval"][0] > alone.facts["difference_interval"][0]
    assert paired.facts["power"] > alone.facts["power"]
    assert alone.facts["power_if_independent"] == pytest.approx(alone.facts["power"], abs=0.02)
    lost = gate.judge(evaluation(930, 1000), "strict", reference(960, 1000))
    assert not lost.passed
    assert "not within the margin of 0.02" in lost.why
    assert (lost.facts["gained"], lost.facts["lost"]) == (0, 30)
    assert "needed" not in lost.facts  # it is worse; more items would only be surer


def test_too_few_items_fail_and_say_how_many_it_takes():
    gate = NonInferiority("feb", 0.01)
    # 45 + 45 of 500 items differ: no loss at all, and no certainty.
    verdict = gate.judge(evaluation(400, 500, start=45), "strict", reference(400, 500))
    assert not verdict.passed
    assert verdict.facts["difference"] == 0
    assert verdict.facts["power"] < 0.2
    assert verdict.facts["needed"] > 5000
    assert f"{verdict.facts['needed']:,} with one of 0.8" in verdict.why


def test_a_missing_baseline_fails():
    verdict = NonInferiority("feb", 0.02).judge(evaluation(10, 10), "strict", None)
    assert not verdict.passed
    assert "no answers of 'feb'" in verdict.why


@pytest.mark.parametrize(
    "make",
    [
        lambda: Minimum(0),
        lambda: Minimum(90),
        lambda: NonInferiority("feb", 0),
        lambda: NonInferiority("feb", 2),
        lambda: NonInferiority("feb", 0.02, power=1),
    ],
)
def test_what_is_no_share_is_refused(make):
    with pytest.raises(InputError, match="is no share"):
        make()
