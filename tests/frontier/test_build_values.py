from __future__ import annotations

from dataclasses import replace

import pytest

from upcurve.frontier.build_values import (
    METRICS,
    Measurement,
    at_interactivity,
    at_operating_point,
)
from upcurve.frontier.cost import joules_per_token, usd_per_million_tokens
from upcurve.frontier.point import Facts, Place, Point

PLACE = Place(tp=2, ep=1, dp=1, gpus=2, prefill_gpus=0, concurrency=4)


def measurement(speed, tput, concurrency, *, repeat=0, watts=None, ttft=None):
    point = Point(speed, tput, 2, 2, concurrency, repeat)
    return Measurement(point, ttft, 1000 / speed, watts)


def build(scale=1.0, **more):
    return [measurement(60, 1000 * scale, 4, **more), measurement(20, 4000 * scale, 32, **more)]


def test_throughput_and_cost_are_read_from_each_builds_own_curve():
    builds = [build(), build(1.1)]
    tput = at_interactivity(builds, 40, METRICS["tput"], None)
    assert [each.value for each in tput] == pytest.approx([2500, 2750])
    cost = at_interactivity(builds, 40, METRICS["usd_per_million"], 1.48)
    assert cost[1].value == pytest.approx(usd_per_million_tokens(1.48, 2750))
    assert at_interactivity(builds, 40, METRICS["usd_per_million"], None)[0].status == "no price"
    beyond = at_interactivity(builds, 61, METRICS["tput"], None)
    assert [(each.value, each.status) for each in beyond] == [(None, "unreachable")] * 2


def test_rounds_give_an_interval_and_costs_turn_it_around():
    rounds = [
        measurement(speed, tput * (1 + r / 100), c, repeat=r)
        for r in range(3)
        for speed, tput, c in ((60, 1000, 4), (20, 4000, 32))
    ]
    (tput,) = at_interactivity([rounds], 40, METRICS["tput"], None)
    (cost,) = at_interactivity([rounds], 40, METRICS["usd_per_million"], 2)
    assert tput.rounds == cost.rounds == 3
    assert tput.interval[0] < tput.value < tput.interval[1]
    assert cost.interval == pytest.approx(
        [usd_per_million_tokens(2, each) for each in reversed(tput.interval)]
    )


def test_energy_is_power_on_a_line_over_throughput_on_the_curve():
    points = [Point(20, 4000, 2, 2, 32), Point(60, 1000, 2, 2, 4)]
    watts = {points[0].place: 600.0, points[1].place: 400.0}
    assert joules_per_token(points, watts, 40, 2500) == pytest.approx(500 / 2500)
    assert joules_per_token(points, watts, 30, 3250) == pytest.approx(550 / 3250)
    assert joules_per_token(points, watts, 20, 4000) == pytest.approx(600 / 4000)
    assert joules_per_token(points, watts, 60, 1000) == pytest.approx(400 / 1000)
    assert joules_per_token(points, watts, 61, 900) is None
    assert joules_per_token(points, watts, 19, 4100) is None
    del watts[points[1].place]
    assert joules_per_token(points, watts, 40, 2500) is None
    assert joules_per_token(points, watts, 20, 4000) == pytest.approx(600 / 4000)


def test_energy_of_builds_is_missing_where_no_power_was_recorded():
    metric = METRICS["joules_per_token"]
    found = at_interactivity([build(watts=500), build()], 40, metric, None)
    assert found[0].value == pytest.approx(0.2)
    assert (found[1].value, found[1].status) == (None, "no power recorded")
    found = at_operating_point([build(watts=500), build()], PLACE, metric, None)
    assert [each.value for each in found] == [pytest.approx(0.5), None]


def test_at_an_operating_point_it_is_the_median_of_repeats():
    repeats = [measurement(60, 1000, 4, repeat=r, ttft=t) for r, t in enumerate((90, 100, 150))]
    first, second = at_operating_point([repeats, build()], PLACE, METRICS["ttft_ms"], None)
    assert (first.value, first.rounds) == (100, 3)
    assert first.interval[0] < 100 < first.interval[1]
    assert (second.value, second.status, second.rounds) == (None, "not measured", 0)


def saturated(one, fingerprint):
    known = Facts(requests=100, client_saturated=True, accuracy_passed=True)
    return replace(one, point=replace(one.point, facts=known), fingerprint=fingerprint)


def test_a_build_carries_what_is_doubtful_about_its_own_points():
    busy = [saturated(each, name) for each, name in zip(build(), ("one", "two"), strict=True)]
    clean, found = at_interactivity([build(), busy], 40, METRICS["tput"], None)
    # Nothing of its ratio over the build before it: a history is no comparison of two.
    assert [each.code for each in clean.flags] == ["too_few_samples", "accuracy_missing"]
    codes = ["mixed_fingerprints", "too_few_samples", "client_saturated"]
    assert [each.code for each in found.flags] == codes
    assert [each["code"] for each in found.to_dict()["flags"]] == codes
    there = at_operating_point([busy], PLACE, METRICS["tput"], None)
    assert [each.code for each in there[0].flags] == ["too_few_samples", "client_saturated"]
    beyond = at_interactivity([busy], 61, METRICS["tput"], None)
    assert beyond[0].flags == ()
