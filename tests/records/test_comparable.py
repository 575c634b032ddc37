from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pytest

from upcurve.errors import InputError
from upcurve.frontier.cost import Price
from upcurve.frontier.point import Facts
from upcurve.frontier.request_noise import request_noise
from upcurve.load.trace import RequestTrace, to_table
from upcurve.records.comparable import (
    comparable_series,
    differences,
    series_flags,
    series_prices,
)
from upcurve.records.published import prices
from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.store import Store

SPRING, AUTUMN = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 9, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store") as opened:
        yield opened


def add(
    store,
    name,
    *,
    workloads=((8192, 1024),),
    model="M",
    hardware="MI355X",
    day=SPRING,
    fingerprint="f",
):
    record = RunRecord(
        series=name,
        source="bench",
        fingerprint=fingerprint,
        model=model,
        hardware=hardware,
        started_at=day,
    )
    run = store.begin_run(record)
    for isl, osl in workloads:
        point = PointRecord(
            isl=isl,
            osl=osl,
            tp=8,
            gpus=8,
            concurrency=4,
            measured_at=day,
            tput_per_gpu=isl / 8,
            interactivity=40,
        )
        store.add_point(run, point)
    store.end_run(run, "complete")


def test_all_series_oldest_first_or_the_named_in_their_order(store):
    add(store, "new", day=AUTUMN)
    add(store, "old")
    assert [each.summary.name for each in comparable_series(store)] == ["old", "new"]
    named = comparable_series(store, ["new", "old", "new"])
    assert [each.summary.name for each in named] == ["new", "old"]
    assert [point.tput_per_gpu for point in named[0].points] == [1024]


def test_hardware_that_a_bench_was_not_told_is_said(store):
    add(store, "ours", hardware="")
    (ours,) = comparable_series(store)
    assert ours.describe() == "M on unnamed hardware, 8192 in / 1024 out, 2026-03-01"
    found, notes = series_prices([ours], prices(), tier="hyperscaler")
    assert found == {"ours": None}
    assert notes == ["ours: no cost, because its hardware was not named"]


def test_an_empty_store_says_how_to_fill_it(store):
    with pytest.raises(InputError, match=r"store: .*upcurve import or upcurve bench"):
        comparable_series(store)


def test_an_unknown_series_is_answered_with_the_known(store):
    add(store, "old")
    with pytest.raises(InputError, match=r"series: 'older' .*it holds old"):
        comparable_series(store, ["old", "older"])


def test_a_run_without_points_is_no_series_yet(store):
    add(store, "begun", workloads=())
    add(store, "old")
    assert [each.summary.name for each in comparable_series(store)] == ["old"]


def test_several_workloads_must_be_chosen_from(store):
    add(store, "old", workloads=[(8192, 1024), (1024, 1024), (1024, 8192)])
    message = r"series old: .*--isl 1024 --osl 1024, --isl 1024 --osl 8192, --isl 8192 --osl 1024"
    with pytest.raises(InputError, match=message):
        comparable_series(store)
    with pytest.raises(InputError, match="choose one of --isl 1024 --osl 1024, --isl 1024 --osl 8"):
        comparable_series(store, isl=1024)
    assert comparable_series(store, isl=8192)[0].workload == (8192, 1024)
    (chosen,) = comparable_series(store, isl=1024, osl=8192)
    assert [point.tput_per_gpu for point in chosen.points] == [128]
    with pytest.raises(InputError, match="no points of that --isl and --osl; it has"):
        comparable_series(store, isl=77)


def test_alike_series_give_no_warning(store):
    add(store, "old", fingerprint="f")
    add(store, "new", fingerprint="g", day=AUTUMN)
    assert differences(comparable_series(store)) == []


def test_what_sets_series_apart_is_said(store):
    add(store, "old")
    add(store, "new", day=AUTUMN, model="N", hardware="H200", workloads=[(1024, 1024)])
    assert differences(comparable_series(store)) == [
        "the series differ in model: M (old), N (new)",
        "the series differ in hardware: MI355X (old), H200 (new)",
        "the series differ in workload: 8192 in / 1024 out (old), 1024 in / 1024 out (new)",
    ]


def test_runs_joined_into_one_curve_are_said(store):
    add(store, "old")
    add(store, "old", fingerprint="g", hardware="H200")
    joined, fingerprints = differences(comparable_series(store))
    assert joined == "old joins runs of H200 and MI355X in one curve"
    assert fingerprints.startswith("old joins 2 fingerprints in one curve")


def test_fingerprints_of_another_workload_do_not_count(store):
    add(store, "old")
    add(store, "old", fingerprint="g", workloads=[(1024, 1024)])
    assert differences(comparable_series(store, isl=8192)) == []


def test_each_series_is_priced_at_its_own_date(store):
    add(store, "spring")
    add(store, "autumn", day=AUTUMN)
    found, notes = series_prices(comparable_series(store), prices(), tier="hyperscaler")
    assert (found["spring"].usd_per_gpu_hour, found["autumn"].usd_per_gpu_hour) == (1.48, 1.5)
    assert notes == []
    found, _ = series_prices(
        comparable_series(store), prices(), tier="rental", on=date(2026, 12, 1)
    )
    assert {price.describe() for price in found.values()} == {
        "MI355X $2.1 per GPU-hour (rental, valid from 2026-07-01)"
    }


def test_a_given_price_takes_the_place_of_the_tables(store):
    add(store, "old")
    compared = comparable_series(store)
    found, _ = series_prices(compared, prices(), tier="hyperscaler", given={"MI355X": 9.0})
    assert found == {"old": Price("MI355X", 9.0)}
    with pytest.raises(InputError, match=r"price: no compared series ran on 'H200'.*MI355X"):
        series_prices(compared, prices(), tier="hyperscaler", given={"H200": 9.0})


@pytest.mark.parametrize(
    ("arguments", "note"),
    [
        ({"hardware": "CPU"}, "x: no cost, because CPU has no price; give --price CPU=USD"),
        (
            {"day": datetime(2020, 1, 1, tzinfo=UTC)},
            "x: no cost, because no hyperscaler price for MI355X holds on 2020-01-01; "
            "the earliest is of 2025-08-01",
        ),
    ],
)
def test_what_has_no_price_has_no_cost_and_a_note(store, arguments, note):
    add(store, "x", **arguments)
    found, notes = series_prices(comparable_series(store), prices(), tier="hyperscaler")
    assert (found, notes) == ({"x": None}, [note])


def test_mixed_hardware_has_no_one_price(store):
    add(store, "x")
    add(store, "x", hardware="H200")
    found, notes = series_prices(comparable_series(store), prices(), tier="hyperscaler")
    assert found == {"x": None}
    assert notes == ["x: no cost, because its runs used H200 and MI355X"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tier": "spot"}, "tier: "), ({"tier": "rental", "on": date(2020, 1, 1)}, "on: ")],
)
def test_an_asked_for_price_that_is_not_there_is_an_error(store, options, message):
    add(store, "x")
    with pytest.raises(InputError, match=message):
        series_prices(comparable_series(store), prices(), **options)


def measured(store, name, values, *, recipe="r", figures=None, accuracy=None, fingerprint="f"):
    """Add one repeat a value; each with the trace of three requests."""
    record = RunRecord(
        series=name,
        source="sweep",
        fingerprint=fingerprint,
        model="M",
        hardware="MI355X",
        started_at=SPRING,
        recipe={"name": recipe},
    )
    run = store.begin_run(record)
    requests = [
        RequestTrace(
            stream=number,
            warm_up=False,
            scheduled_ns=0,
            sent_ns=0,
            first_content_ns=10**8,
            last_ns=10**8 + (10 + number) * 10**7,
            ended_ns=10**9,
            output_tokens=11,
        )
        for number in range(3)
    ]
    for repeat, value in enumerate(values):
        point = PointRecord(
            isl=64,
            osl=32,
            tp=1,
            gpus=1,
            concurrency=4,
            repeat=repeat,
            measured_at=SPRING,
            tput_per_gpu=value,
            interactivity=40,
            requests=32,
            failed=1,
            result=figures or {},
            accuracy=accuracy,
        )
        store.add_point(run, point, to_table(requests))
    store.end_run(run, "complete")


def test_points_carry_what_a_reader_must_know(store):
    figures = {"client": {"saturated": True}, "output_length_ok": False}
    measured(store, "x", [100, 101, 102], figures=figures, accuracy={"passed": False})
    (found,) = comparable_series(store)
    facts = [point.facts for point in found.points]
    assert {(f.requests, f.failed, f.client_saturated) for f in facts} == {(32, 1, True)}
    assert {(f.output_length_ok, f.accuracy_passed) for f in facts} == {(False, False)}
    times = np.array([10.0, 11, 12])
    assert facts[0].request_noise == pytest.approx(request_noise(times, times + 10))
    assert found.noise is None


def test_what_was_not_recorded_is_unknown_and_single_runs_read_no_trace(store):
    measured(store, "x", [100])
    (found,) = comparable_series(store)
    assert found.points[0].facts == Facts(32, 1, None, None, None, None)


def test_a_series_of_single_runs_has_the_noise_of_its_recipes_history(store):
    measured(store, "now", [100])
    measured(store, "other recipe", [100, 200], recipe="s", fingerprint="g")
    assert comparable_series(store, ["now"])[0].noise is None
    measured(store, "before", [100, 102], fingerprint="h")
    noise = comparable_series(store, ["now"])[0].noise
    assert (noise.runs, noise.variation) == (2, pytest.approx(0.014, abs=1e-4))


def test_flags_of_whole_series(store):
    add(store, "x")
    add(store, "x", fingerprint="g")
    add(store, "y", day=AUTUMN)
    compared = comparable_series(store)
    found = series_flags(compared, {"x": Price("MI355X", 9.0), "y": None})
    assert [flag.code for flag in found["x"]] == ["mixed_fingerprints", "price_assumption"]
    assert "it joins 2 fingerprints" in found["x"][0].text
    assert found["y"] == []
