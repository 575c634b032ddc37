from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.records.examples import point_record, run_record
from upcurve.errors import InputError
from upcurve.records.history import changes_between, differences, histories, stem
from upcurve.records.store import Store

DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store") as opened:
        yield opened


def add(store, series="nightly", *, day=0, points=({},), **facts):
    when = DAY + timedelta(days=day)
    run = store.begin_run(run_record(series=series, started_at=when, **facts))
    for each in points:
        store.add_point(run, point_record(measured_at=when, **each))
    store.end_run(run, "complete")


@pytest.mark.parametrize(
    ("series", "kept"),
    [
        ("feb", ""),
        ("may-2026", ""),
        ("vllm-0.26.0", "vllm"),
        ("sglang-v0.5.12.post1", "sglang"),
        ("nightly-2026-05-19", "nightly"),
        ("nightly-20260519", "nightly"),
        ("main-dc3f2c8", "main"),
        ("qwen35-397b-fp8-mi355x-apr", "qwen35-397b-fp8-mi355x"),
        ("qwen35-35b-fp8-h200", "qwen35-35b-fp8-h200"),
        ("baseline", "baseline"),
        ("decode", "decode"),
        ("maybe", "maybe"),
    ],
)
def test_a_stem_has_no_date_version_month_or_commit(series, kept):
    assert stem(series) == kept


def test_builds_come_in_the_order_of_time_and_runs_of_one_build_join(store):
    add(store, day=5, engine_version="2")
    add(store, day=1, engine_version="1")
    add(store, "nightly-2026-03-08", day=7, engine_version="2")
    (history,) = histories(store, ())
    assert [each.label for each in history.builds] == ["1 abc1234", "2 abc1234"]
    second = history.builds[1]
    assert second.series == ("nightly", "nightly-2026-03-08")
    assert [each.point.repeat for each in second.measurements] == [0, 1]
    assert (second.last - second.first).days == 2


def test_repeats_of_other_settings_are_no_repeats(store):
    add(store)
    add(store, day=1, fingerprint="g" * 64)
    (history,) = histories(store, ())
    assert [each.point.repeat for each in history.builds[0].measurements] == [0, 0]


def test_what_is_not_alike_is_a_history_of_its_own(store):
    add(store)
    add(store, model="other")
    add(store, hardware="H200")
    add(store, precision="bf16")
    add(store, engine="vllm")
    add(store, points=[{"isl": 1024}])
    add(store, "weekly")
    assert len(histories(store, ())) == 7
    assert len(histories(store, (), joined=True)) == 6
    assert len(histories(store, ("week*",))) == 1
    assert [each.workload for each in histories(store, (), isl=1024)] == [(1024, 1024)]


def test_by_date_a_build_measured_twice_is_two(store):
    add(store, day=0)
    add(store, day=3)
    assert len(histories(store, ())[0].builds) == 1
    (history,) = histories(store, (), by="date")
    assert [each.label for each in history.builds] == ["2026-03-01", "2026-03-04"]


def test_equal_labels_are_told_apart(store):
    for day, image in ((0, "a"), (1, "b"), (1, "c")):
        add(store, day=day, image=image)
    (history,) = histories(store, ())
    assert [each.label for each in history.builds] == [
        "0.5.12 abc1234 2026-03-01",
        "0.5.12 abc1234 2026-03-02",
        "0.5.12 abc1234 2026-03-02 #2",
    ]


def test_differences_are_those_of_flags_variables_software_and_machine(store):
    def facts(command, driver, environment):
        return {
            "recipe": {"engine": {"command": command, "env": {}}, "workload": {"isl": 8192}},
            "software": {"drivers": [driver], "torch": "2.11", "environment": environment},
        }

    add(store, **facts(["serve", "--tp", "8", "--fast"], "AMD 1", {"NCCL_X": "1"}))
    add(
        store,
        day=1,
        engine_version="0.6",
        change="https://example.org/pull/9",
        harness_version="0.2.0",
        **facts(["serve", "--tp=4"], "AMD 2", {}),
    )
    (history,) = histories(store, ())
    assert differences(*history.builds) == [
        "driver: AMD 1 -> AMD 2",
        "engine version: 0.5.12 -> 0.6",
        "flag --fast: given -> none",
        "flag --tp: 8 -> 4",
        "harness version: 0.1.0 -> 0.2.0",
        "variable NCCL_X: 1 -> none",
    ]
    assert changes_between(history, *history.builds) == ["https://example.org/pull/9"]


def test_power_is_kept_where_it_can_be_trusted(store):
    def result(valid):
        return {"power": {"totals": {"joules_per_output_token": 2.0, "energy_valid": valid}}}

    points = [
        {"concurrency": c, "output_tput_per_gpu": tput, "result": given}
        for c, tput, given in (
            (1, 100.0, result(True)),
            (2, 100.0, result(False)),
            (3, None, result(True)),
            (4, 100.0, {"power": None}),
        )
    ]
    add(store, points=points)
    (history,) = histories(store, ())
    found = {each.point.concurrency: each.watts_per_gpu for each in history.builds[0].measurements}
    assert found == {1: 200.0, 2: None, 3: None, 4: None}


def test_the_published_months_are_three_builds_with_the_changes_between():
    (history,) = histories(None, ("published:mi355x-qwen35",))
    assert [each.label for each in history.builds] == ["0.5.8.post1", "0.5.10rc0", "0.5.12"]
    first, second, third = history.builds
    numbers = [
        text.split()[0].rpartition("/")[2] for text in changes_between(history, first, second)
    ]
    assert numbers == ["21188", "21421", "20736"]
    assert changes_between(history, second, third) == []
    assert "gpus: 8 -> 2 and 4" in differences(first, second)
    assert [text.partition(":")[0] for text in differences(second, third)] == [
        "engine version",
        "image",
    ]


def test_what_fits_nothing_is_one_line(store):
    with pytest.raises(InputError, match="no measured points"):
        histories(store, ())
    add(store)
    with pytest.raises(InputError, match="'june' fits none in the store; it holds nightly"):
        histories(store, ("june",))
    with pytest.raises(InputError, match="no set 'june'"):
        histories(None, ("published:june",))
