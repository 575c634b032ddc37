from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from upcurve.frontier.comparison import compare
from upcurve.frontier.flags import Flag, end_segment
from upcurve.frontier.grid import legend
from upcurve.frontier.interpolation import Curve
from upcurve.frontier.point import Facts, Point
from upcurve.frontier.uncertainty import NoiseFloor, inside_noise, noise_floor

OLD = [Point(10, 1000, 8, 8, 64), Point(20, 600, 8, 8, 16), Point(30, 400, 8, 8, 8)]
NEW = [Point(15, 2000, 4, 4, 64), Point(25, 1500, 4, 4, 16), Point(60, 300, 4, 4, 4)]
SOUND = Facts(640, 0, False, True, True)


def repeated(points, facts=SOUND, spread=0.01, count=4):
    return [
        replace(p, repeat=r, facts=facts, tput_per_gpu=p.tput_per_gpu * (1 + spread * (r - 1.5)))
        for p in points
        for r in range(count)
    ]


def flags(target, old=None, new=None, **options):
    series = {"old": old or repeated(OLD), "new": new or repeated(NEW)}
    found = compare(series, baseline="old", targets=[target], usd_per_gpu_hour={}, **options)
    return {flag.code: flag.text for flag in found.series[1].at[0].flags}


def test_a_sound_reading_has_no_flag():
    wide = [*OLD, Point(40, 350, 8, 8, 4), Point(50, 300, 8, 8, 2)]
    new = [replace(p, tput_per_gpu=2 * p.tput_per_gpu) for p in wide]
    assert flags(25, repeated(wide), repeated(new)) == {}


def test_ratios_at_the_end_of_the_baseline_are_of_reach():
    assert "20 to 30" in flags(26)["regime_extension"]
    assert "old ends at 30" in flags(40)["regime_extension"]
    assert "regime_extension" not in flags(18)
    assert "over the interpolation rules" in flags(18)["end_segment_sensitivity"]


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (replace(SOUND, requests=12), "too_few_samples"),
        (replace(SOUND, client_saturated=True), "client_saturated"),
        (replace(SOUND, failed=3), "partial_failures"),
        (replace(SOUND, output_length_ok=False), "partial_failures"),
        (replace(SOUND, accuracy_passed=False), "accuracy_failed"),
        (replace(SOUND, accuracy_passed=None), "accuracy_missing"),
        (None, "accuracy_missing"),
    ],
)
def test_what_is_doubtful_about_the_points_around_a_target_is_said(facts, code):
    new = repeated(NEW[:2], facts) + repeated(NEW[2:])
    assert code in flags(20, new=new)
    doubtful_elsewhere = repeated(NEW[:1], facts) + repeated(NEW[1:])
    assert code not in flags(25, new=doubtful_elsewhere)


def test_few_repeats_are_counted_in_words():
    assert flags(20, new=repeated(NEW, count=1))["too_few_samples"].startswith("one run only")
    assert flags(20, new=repeated(NEW, count=2))["too_few_samples"].startswith("two runs only")


def test_a_target_that_repeats_do_not_surely_reach_has_no_interval():
    new = [
        replace(p, interactivity=p.interactivity * (1 + 0.02 * (p.repeat - 1.5)))
        for p in repeated(NEW)
    ]
    assert "59.9" in flags(59.9, new=new)["reach_uncertain"]
    assert "reach_uncertain" not in flags(40, new=new)


def test_a_ratio_whose_interval_holds_one_shows_no_difference():
    same = [
        replace(p, tput_per_gpu=p.tput_per_gpu * (1.001 if p.repeat % 2 else 0.999))
        for p in repeated(OLD)
    ]
    assert "inside_noise" in flags(20, new=same)
    assert "inside_noise" not in flags(20)


def test_single_runs_are_held_against_the_noise_of_earlier_ones():
    floor = NoiseFloor(0.02, 12)
    single = {"old": repeated(OLD, count=1), "noise": {"old": floor, "new": floor}}
    near = [replace(p, tput_per_gpu=p.tput_per_gpu * 1.03) for p in repeated(OLD, count=1)]
    assert "inside_noise" in flags(20, new=near, **single)
    assert "inside_noise" not in flags(20, new=repeated(NEW, count=1), **single)
    # Two runs of 2 % each: 1.96 x 2.83 % = 5.5 %.
    assert inside_noise(1.05, 0.02, 0.02)
    assert not inside_noise(1.06, 0.02, 0.02)
    assert not inside_noise(1.05, 0.02, None)


def test_the_noise_floor_is_pooled_over_groups():
    found = noise_floor([[(20, 100), (20, 102)], [(9, 50), (9, 51), (9, 49)], [(1, 7)]])
    assert found.runs == 5
    assert found.variation == pytest.approx(0.0182, abs=5e-4)
    assert (found.interactivity, found.covariance) == (0, 0)
    assert noise_floor([[(1, 7)], []]) is None


def test_noise_at_equal_interactivity_is_that_of_readings_of_single_runs():
    chance = np.random.default_rng(0)
    x, y = np.array([10.0, 20, 30, 40, 50]), np.array([1000.0, 900, 600, 350, 120])
    covariance = [[0.004**2, 0.5 * 0.004 * 0.003], [0.5 * 0.004 * 0.003, 0.003**2]]
    runs = np.exp(chance.multivariate_normal([0, 0], covariance, 4000))
    floor = noise_floor([[(x[2] * a, y[2] * b) for a, b in runs]])
    for target in (15, 35, 45):
        read = [Curve.through(x * a, y * b).at(target).value for a, b in runs]
        expected = floor.at_interactivity(Curve.through(x, y).elasticity(target))
        assert np.std(np.log(read)) == pytest.approx(expected, rel=0.03)
    # At the steep end a run moves far more than its throughput at a concurrency does.
    assert expected > 4 * floor.variation
    assert Curve.through([10.0], [5.0]).elasticity(10) == 0


def test_flags_of_series_and_readings_are_words_with_their_places():
    series = {"old": repeated(OLD, count=1), "new": repeated(NEW, count=1)}
    price = Flag("price_assumption", "cost assumes $2")
    found = compare(
        series, baseline="old", targets=[18, 20], usd_per_gpu_hour={}, flags={"new": [price]}
    )
    lines = legend(found, {})
    assert "price assumption: cost assumes $2 (new)." in lines
    few = next(line for line in lines if line.startswith("too few samples"))
    assert few.endswith("which takes 3 (all points).")
    assert found.to_dict()["series"][1]["flags"] == [price.to_dict()]


def test_a_note_says_no_place_and_no_figure_of_the_table_a_machine_gets_both():
    def reasons(target, code, **options):
        found = compare(
            {"old": repeated(OLD), "new": options.get("new", repeated(NEW))},
            baseline="old",
            targets=target,
            usd_per_gpu_hour={},
        )
        flags = [each for at in found.series[1].at for each in at.flags if each.code == code]
        assert [set(each.to_dict()) for each in flags] == [{"code", "text"}] * len(target)
        assert len({each.to_dict()["text"] for each in flags}) == len(target)
        return {each.reason for each in flags}

    (last,) = reasons([26, 27], "regime_extension")
    assert last.startswith("the last interval of old (20 to 30 tok/s/user)")
    assert reasons([40, 50], "regime_extension") == {
        "old ends at 30 tok/s/user: what is gained beyond is reach, no ratio of speeds"
    }
    assert len(reasons([26, 27], "end_segment_sensitivity")) == 1
    swaying = [
        replace(p, interactivity=p.interactivity * (1 + 0.02 * (p.repeat - 1.5)))
        for p in repeated(NEW)
    ]
    assert len(reasons([59.8, 59.9], "reach_uncertain", new=swaying)) == 1


def test_a_ratio_that_no_rule_moves_is_said_once():
    assert end_segment(("1.40x", "1.40x")).text.endswith(": 1.40x over the interpolation rules")
    assert "1.40x to 1.50x" in end_segment(("1.40x", "1.50x")).text


def test_a_single_run_against_repeats_may_be_inside_the_noise_of_both():
    base = [
        replace(p, tput_per_gpu=p.tput_per_gpu * (1 + wobble))
        for wobble, own in zip((-0.02, 0.0, 0.02), range(3), strict=True)
        for p in repeated(OLD, count=3)
        if p.repeat == own
    ]
    floor = {"noise": {"new": NoiseFloor(0.02, 9)}}
    near = [replace(p, tput_per_gpu=p.tput_per_gpu * 1.03) for p in repeated(OLD, count=1)]
    far = [replace(p, tput_per_gpu=p.tput_per_gpu * 1.10) for p in repeated(OLD, count=1)]
    assert "inside_noise" in flags(20, old=base, new=near, **floor)
    assert "inside_noise" not in flags(20, old=base, new=far, **floor)
    assert "inside_noise" not in flags(20, old=base, new=near)
