from __future__ import annotations

import pytest

from tests.records.examples import add_run
from upcurve.errors import InputError
from upcurve.records.build import differences
from upcurve.records.history import changes_between, histories, stem
from upcurve.records.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store") as opened:
        yield opened


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
    add_run(store, day=5, engine_version="2")
    add_run(store, day=1, engine_version="1")
    add_run(store, "nightly-2026-03-08", day=7, engine_version="2")
    (history,) = histories(store, ())
    assert [each.label for each in history.builds] == ["1 abc1234", "2 abc1234"]
    second = history.builds[1]
    assert second.series == ("nightly", "nightly-2026-03-08")
    assert [each.point.repeat for each in second.measurements] == [0, 1]
    assert (second.last - second.first).days == 2


def test_what_is_not_alike_is_a_history_of_its_own(store):
    add_run(store)
    add_run(store, model="other")
    add_run(store, hardware="H200")
    add_run(store, precision="bf16")
    add_run(store, engine="vllm")
    add_run(store, points=[{"isl": 1024}])
    add_run(store, "weekly")
    assert len(histories(store, ())) == 7
    assert len(histories(store, (), joined=True)) == 6
    assert len(histories(store, ("week*",))) == 1
    assert [each.workload for each in histories(store, (), isl=1024)] == [(1024, 1024)]


def test_by_date_a_build_measured_twice_is_two(store):
    add_run(store, day=0)
    add_run(store, day=3)
    assert len(histories(store, ())[0].builds) == 1
    (history,) = histories(store, (), by="date")
    assert [each.label for each in history.builds] == ["2026-03-01", "2026-03-04"]


def test_changes_are_those_that_the_runs_of_a_build_name(store):
    add_run(store)
    add_run(store, day=1, engine_version="0.6", change="https://example.org/pull/9")
    (history,) = histories(store, ())
    assert changes_between(history, *history.builds) == ["https://example.org/pull/9"]


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
    add_run(store)
    with pytest.raises(InputError, match="'june' fits none in the store; it holds nightly"):
        histories(store, ("june",))
    with pytest.raises(InputError, match="no set 'june'"):
        histories(None, ("published:june",))
