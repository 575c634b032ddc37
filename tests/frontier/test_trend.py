from __future__ import annotations

from dataclasses import replace

import pytest

from upcurve.frontier.build_values import METRICS, Value
from upcurve.frontier.flags import Flag
from upcurve.frontier.trend import judge

WOBBLE = (0.002, -0.003, 0.001, 0.004, -0.002, 0.0, -0.004, 0.003)


def values(*levels):
    return [
        Value(level * (1 + each), "interpolated", 1, None) for level in levels for each in WOBBLE
    ]


@pytest.mark.parametrize(
    ("metric", "levels", "state"),
    [
        ("tput", (100, 95), "regression"),
        ("tput", (100, 105), "improvement"),
        ("ttft_ms", (100, 95), "improvement"),
        ("usd_per_million", (1, 1.05), "regression"),
        ("tput", (100, 90, 100), "improvement"),
        ("tput", (100, 100), "no change"),
    ],
)
def test_the_newest_change_point_decides(metric, levels, state):
    assert judge(values(*levels), METRICS[metric], 0.01).state == state


def test_a_change_below_the_smallest_that_counts_is_shown_but_no_regression():
    trend = judge(values(100, 95), METRICS["tput"], 0.10)
    assert trend.state == "no change"
    assert "below 10.0%" in trend.reason
    assert len(trend.steps.change_points) == 1


def test_builds_without_a_value_are_counted_in_positions():
    known = values(100, 95)
    hole = Value(None, "not measured", 0, None)
    trend = judge([known[0], hole, *known[1:]], METRICS["tput"], 0.01)
    assert [each.index for each in trend.steps.change_points] == [len(WOBBLE) + 1]


def test_newest_builds_that_no_longer_reach_are_a_regression():
    known, gone = values(100), Value(None, "unreachable", 0, None)
    once = judge([*known, gone], METRICS["tput"], 0.01)
    assert once.state == "no change"
    assert "does not reach" in once.notes[0]
    assert judge([*known, gone, gone], METRICS["tput"], 0.01).state == "regression"
    hole = Value(None, "not measured", 0, None)
    assert judge([*known, hole, hole], METRICS["tput"], 0.01).state == "no change"
    assert judge([gone, gone], METRICS["tput"], 0.01).state == "insufficient data"


def test_a_trend_says_its_flags_in_words_with_how_many_builds_have_them():
    plain, busy = Flag("client_saturated", "in 1 of 3 runs"), Flag("client_saturated", "in 2 of 3")
    builds = [replace(each, flags=(plain,)) for each in values(1000)]
    builds[-1] = replace(builds[-1], flags=(busy,))
    builds[0] = replace(builds[0], flags=())
    trend = judge(builds, METRICS["tput"], 0.01)
    assert trend.notes == ("client saturated in 7 of 8 builds, in the newest of them: in 2 of 3",)
    same = [replace(each, flags=(plain,)) for each in builds]
    (note,) = judge(same, METRICS["tput"], 0.01).notes
    assert note == "client saturated in 8 of 8 builds: in 1 of 3 runs"
    (note,) = judge([replace(same[0], flags=(plain, busy))], METRICS["tput"], 0.01).notes
    assert note == "client saturated in 1 of 1 builds: in 1 of 3 runs; in 2 of 3"
    assert judge(builds[:1], METRICS["tput"], 0.01).reason.startswith("1 build with a value")
