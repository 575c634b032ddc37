from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.errors import InputError
from upcurve.frontier.comparison import compare
from upcurve.frontier.interpolation import Curve
from upcurve.frontier.point import Point
from upcurve.frontier.targets import round_targets, targets_every

OLD = [Point(10, 1000, 8, 8, 64), Point(20, 600, 8, 8, 16), Point(30, 400, 8, 8, 8)]
NEW = [Point(15, 2000, 4, 4, 64), Point(25, 1500, 4, 4, 16), Point(60, 300, 4, 4, 4)]


def run(series, targets, baseline="old", prices=None, **options):
    return compare(
        series, baseline=baseline, targets=targets, usd_per_gpu_hour=prices or {}, **options
    )


def readings(comparison, name):
    return next(each for each in comparison.series if each.name == name).at


def test_the_json_object_is_the_contract():
    found = run({"old": OLD, "new": NEW}, [5, 12, 20, 30, 40, 70], prices={"old": 1.8}).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found) == ["targets", "baseline", "series"]
    assert (found["targets"], found["baseline"]) == ([5, 12, 20, 30, 40, 70], "old")
    old, new = found["series"]
    assert list(old) == list(new)
    assert list(old) == [
        "name",
        "frontier",
        "at",
        "rounds",
        "usd_per_gpu_hour",
        "area",
        "noise_floor",
        "flags",
        "rule",
    ]
    assert (old["rule"], old["rounds"], old["usd_per_gpu_hour"]) == ("published", 0, 1.8)
    assert old["frontier"][0] == {
        "interactivity": 10,
        "tput_per_gpu": 1000,
        "tp": 8,
        "ep": 1,
        "dp": 1,
        "gpus": 8,
        "prefill_gpus": None,
        "decode_gpus": None,
        "concurrency": 64,
        "repeats": 1,
        "interactivity_interval": None,
        "tput_per_gpu_interval": None,
        "correlation": None,
    }
    assert old["area"] is None
    assert list(new["area"]) == ["ratio", "band", "interval"]
    assert new["area"]["band"] == [15, 30]
    measured = {
        "interactivity": 20,
        "tput_per_gpu": 600.0,
        "status": "measured",
        "segment": None,
        "interval": None,
        "usd_per_million_tokens": pytest.approx(1.8 / 600 / 0.0036),
        "ratio": 1.0,
        "ratio_interval": None,
        "round_ratios": None,
        "rule_ratios": None,
        "flags": old["at"][2]["flags"],
    }
    assert old["at"][2] == measured
    assert all(list(flag) == ["code", "text"] for each in new["at"] for flag in each["flags"])
    assert list(old["at"][2]) == list(measured)
    assert [r["status"] for r in old["at"]] == [
        "below_range",
        "interpolated",
        "measured",
        "measured",
        "unreachable",
        "unreachable",
    ]
    assert [r["status"] for r in new["at"]] == [
        "below_range",
        "below_range",
        "interpolated",
        "interpolated",
        "interpolated",
        "unreachable",
    ]
    # Below both, below one, both, both, only the baseline unreachable, both unreachable.
    ratios = [r["ratio"] for r in new["at"]]
    assert [ratios[0], ratios[1], ratios[4], ratios[5]] == [None, None, "inf", None]
    assert ratios[2] == new["at"][2]["tput_per_gpu"] / 600
    assert [r["ratio"] for r in old["at"]] == [None, 1.0, 1.0, 1.0, None, None]
    assert all(r["usd_per_million_tokens"] is None for r in new["at"])


def test_a_baseline_whose_range_starts_above_the_target_has_no_ratio():
    found = run({"old": OLD, "new": NEW}, [12], baseline="new")
    assert readings(found, "old")[0].ratio is None


operating_points = st.lists(
    st.tuples(st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 2, 4])),
    min_size=1,
    max_size=12,
)


def as_points(raw):
    return [Point(float(x), float(y), tp, tp, i) for i, (x, y, tp) in enumerate(raw)]


@given(operating_points, operating_points, st.randoms(use_true_random=False))
def test_order_of_points_and_dominated_points_change_nothing(a, b, rng):
    a, b = as_points(a), as_points(b)
    plain = run({"old": a, "new": b}, [3, 17.5, 30, 55]).to_dict()
    dominated = [
        replace(p, interactivity=p.interactivity * 0.9, tput_per_gpu=p.tput_per_gpu * 0.8, tp=7)
        for p in b
    ]
    mixed, shuffled = [*dominated, *b], list(a)
    rng.shuffle(mixed)
    rng.shuffle(shuffled)
    assert run({"old": shuffled, "new": mixed}, [3, 17.5, 30, 55]).to_dict() == plain


@given(operating_points, operating_points, st.floats(0.1, 50))
def test_ratio_and_cost_follow_from_the_throughputs(a, b, price):
    targets = [3, 17.5, 30, 55]
    found = run({"old": as_points(a), "new": as_points(b)}, targets, prices={"new": price})
    for own, base in zip(readings(found, "new"), readings(found, "old"), strict=True):
        if own.tput_per_gpu is None:
            assert own.ratio is own.usd_per_million_tokens is None
            continue
        assert own.usd_per_million_tokens * own.tput_per_gpu * 0.0036 == pytest.approx(price)
        if base.tput_per_gpu is not None:
            assert own.ratio == own.tput_per_gpu / base.tput_per_gpu
        else:
            assert own.ratio == (math.inf if base.status == "unreachable" else None)


def repeated(points, factors):
    return [
        replace(p, tput_per_gpu=p.tput_per_gpu * factor, repeat=r)
        for p in points
        for r, factor in enumerate(factors)
    ]


def test_repeats_are_one_point_each_with_an_interval_around_it():
    series = {"old": repeated(OLD, [1, 1.02, 0.98]), "new": repeated(NEW, [1.1, 1.1, 0.9])}
    found = run(series, [22])
    old = found.series[0]
    assert [p.tput_per_gpu for p in old.frontier] == [1000, 600, 400]
    assert old.rounds == 3
    at_22 = Curve.through([10, 20, 30], [1000, 600, 400]).at(22).value
    logs = np.log([at_22, 1.02 * at_22, 0.98 * at_22])
    # All points move alike, so the curve does: Student's t with two degrees of freedom, 4.302653.
    margin = 4.302653 * logs.std(ddof=1) / math.sqrt(3)
    expected = np.exp([logs.mean() - margin, logs.mean() + margin])
    assert np.log(old.at[0].interval) == pytest.approx(np.log(expected), abs=0.15 * margin)
    assert old.to_dict()["at"][0]["interval"] == list(old.at[0].interval)
    assert old.at[0].round_ratios is None
    new = readings(found, "new")[0]
    plain = readings(run({"old": OLD, "new": NEW}, [22]), "new")[0].ratio
    paired = sorted(plain * a / b for a, b in ((1.1, 1), (1.1, 1.02), (0.9, 0.98)))
    spread = new.round_ratios
    assert (spread.minimum, spread.median, spread.maximum) == pytest.approx(tuple(paired))
    assert new.ratio_interval[0] < new.ratio < new.ratio_interval[1]
    ours, theirs = found.series[1].intervals[0], old.intervals[0]
    assert ours.repeats == 3
    assert theirs.interactivity == pytest.approx((10, 10))
    assert theirs.tput_per_gpu[0] < 1000 < theirs.tput_per_gpu[1]
    assert found.series[1].area.interval[0] < found.series[1].area.ratio


def test_no_interval_where_a_round_does_not_reach_the_target_or_rounds_are_few():
    short = [
        replace(p, interactivity=p.interactivity * (0.9 if p.repeat == 1 else 1))
        for p in repeated(OLD, [1, 1, 1, 1])
    ]
    at_20, at_29 = readings(run({"old": short}, [20, 29]), "old")
    assert at_20.interval is not None
    assert (at_29.status, at_29.interval) == ("interpolated", None)
    assert readings(run({"old": repeated(OLD, [1, 1.1])}, [20]), "old")[0].interval is None


def test_rounds_are_paired_by_their_number_where_two_are_shared():
    def of(numbers):
        return [replace(p, repeat=r) for p in OLD for r in numbers]

    shared = run({"old": of([0, 1, 2]), "new": of([1, 2, 3])}, [20])
    assert readings(shared, "new")[0].round_ratios.rounds == 2
    one = run({"old": of([0, 1, 2]), "new": of([2, 3, 4])}, [20])
    assert readings(one, "new")[0].round_ratios is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "older"}, "baseline: 'older' is not compared; give one of old"),
        ({"targets": []}, "targets"),
        ({"targets": [20, math.nan]}, "targets"),
        ({"targets": [-1]}, "targets"),
        ({"rule": "cubic"}, "rule: 'cubic'.*secant_ends"),
        ({"series": {"old": []}}, "series old: it has no points"),
        ({"series": {"old": [Point(0, 5, 1, 1, 4)]}}, "series old: .*concurrency 4"),
        ({"series": {"old": [Point(5, math.inf, 1, 1, 4)]}}, "series old: .*inf"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        run(**({"series": {"old": OLD}, "targets": [20]} | arguments))


def test_round_targets_lie_in_the_overlap():
    assert round_targets({"old": OLD, "new": NEW}) == [15, 20, 25, 30]
    assert round_targets({"old": OLD}) == [10, 15, 20, 25, 30]
    assert round_targets({"one": [Point(12.34, 5, 1, 1, 1)]}) == [12.34]


@given(st.floats(1e-3, 1e5), st.floats(1e-6, 1e5))
def test_round_targets_are_few_ascending_and_reached(start, span):
    points = [Point(start, 2, 1, 1, 2), Point(start + span, 1, 1, 1, 1)]
    targets = round_targets({"only": points})
    assert 1 <= len(targets) <= 6
    assert targets == sorted(set(targets))
    assert start <= targets[0] <= targets[-1] <= start + span


def test_targets_every_step_cover_what_any_frontier_reaches():
    assert targets_every({"old": OLD, "new": NEW}, 10) == [10, 20, 30, 40, 50, 60]
    assert targets_every({"old": OLD}, 2.5)[:3] == [10, 12.5, 15]
    for step in (100, 0.001):
        with pytest.raises(InputError, match="every: "):
            targets_every({"old": OLD, "new": NEW}, step)


def test_frontiers_that_do_not_overlap_are_said_with_their_spans():
    far = [Point(90, 5, 1, 1, 1), Point(99, 4, 1, 1, 1)]
    with pytest.raises(InputError, match=r"at: .*old 10 to 30, far 90 to 99.*--at"):
        round_targets({"old": OLD, "far": far})
