from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from tests.records.examples import point_record, run_record
from upcurve.errors import InputError
from upcurve.frontier.repeats import split_repeats
from upcurve.records.store import Store


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(tmp_path / "results") as opened:
        yield opened


def test_run_and_points_come_back_as_they_were(store: Store) -> None:
    run = run_record()
    points = [
        point_record(),
        point_record(
            concurrency=8,
            repeat=2,
            measured_at=datetime(2026, 5, 19, 20, tzinfo=timezone(timedelta(hours=8))),
            input_tput_per_gpu=1126.7,
            output_tput_per_gpu=140.8,
            ttft_ms=350.5,
            requests=40,
            failed=1,
            result={"itl_ms": {"p50": 13.1, "p99": None}, "client": {"saturated": False}},
            accuracy={"gsm8k": 0.943},
        ),
    ]
    run_id = store.begin_run(run)
    for point in points:
        store.add_point(run_id, point)
    store.end_run(run_id, "complete")
    assert store.find_run(run_id) == (run, points)
    assert store.find_run("other") is None


def test_store_is_still_there_when_opened_again(tmp_path: Path) -> None:
    with Store.open(tmp_path / "results") as store:
        run_id = store.begin_run(run_record())
        store.add_points(run_id, [point_record(repeat=n) for n in range(3)])
        store.end_run(run_id, "complete")
    with Store.open(str(tmp_path / "results"), create=False) as store:
        assert [point.repeat for point in store.points("may")] == [0, 1, 2]


def test_accuracy_is_recorded_at_a_point_and_seen_by_other_tools(
    store: Store, tmp_path: Path
) -> None:
    run_id = store.begin_run(run_record())
    ids = [store.add_point(run_id, point_record(concurrency=each)) for each in (4, 8)]
    later = store.add_point(run_id, point_record(concurrency=4, repeat=1, isl=64))
    assert store.latest_points("may") == {4: (later, 64), 8: (ids[1], 8192)}
    store.set_accuracy(ids[0], {"score": 0.5, "passed": False})
    store.set_accuracy(ids[0], {"score": 0.9, "passed": True})
    found = store.facts([*ids, later])
    assert [found[each].accuracy_passed for each in (*ids, later)] == [True, None, None]
    query = "SELECT json_extract(accuracy, '$.score') FROM measurements ORDER BY point_id"
    with sqlite3.connect(tmp_path / "results" / "store.sqlite") as connection:
        assert connection.execute(query).fetchall() == [(0.9,), (None,), (None,)]
    connection.close()
    with pytest.raises(InputError, match="point 99: there is no such point"):
        store.set_accuracy(99, {})
    with pytest.raises(InputError, match="series 'june': not in the store"):
        store.latest_points("june")


def test_trace_and_log_lie_in_the_folder(store: Store, tmp_path: Path) -> None:
    run_id = store.begin_run(run_record())
    trace = pyarrow.table({"request": [0, 1], "sent_s": [0.0, 0.25]})
    point = store.add_point(run_id, point_record(), trace)
    assert store.trace(point).equals(trace)
    [file] = (tmp_path / "results" / "traces" / run_id).iterdir()
    assert file.suffix == ".parquet"
    store.log_path(run_id).write_text("ready\n")
    assert (tmp_path / "results" / "logs" / f"{run_id}.log").read_text() == "ready\n"


def test_what_is_not_there_is_said(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run: the store has none named nobody"):
        store.add_point("nobody", point_record())
    with pytest.raises(InputError, match="run: the store has none named nobody"):
        store.end_run("nobody", "complete")
    with pytest.raises(InputError, match="cannot name a file"):
        store.log_path("../../etc/passwd")
    with pytest.raises(InputError, match="store: there is none in"):
        Store.open(tmp_path / "elsewhere", create=False)
    assert not (tmp_path / "elsewhere").exists()


def test_a_point_comes_once_and_its_second_trace_goes(store: Store, tmp_path: Path) -> None:
    run_id = store.begin_run(run_record())
    trace = pyarrow.table({"request": [0]})
    store.add_point(run_id, point_record(), trace)
    with pytest.raises(InputError, match="this point already; give it another repeat index"):
        store.add_point(run_id, point_record(), trace)
    assert len(list((tmp_path / "results" / "traces" / run_id).iterdir())) == 1


def test_bulk_is_all_or_nothing(store: Store) -> None:
    run_id = store.begin_run(run_record())
    twice = [point_record(concurrency=c) for c in (1, 2, 3, 2)]
    with pytest.raises(InputError, match="this point already"):
        store.add_points(run_id, twice)
    assert store.points("may") == []
    broken = (point for point in [point_record(), None])
    with pytest.raises(AttributeError):
        store.add_finished_runs([("one", run_record(), broken)], "test")
    assert not store.has_run("one")


def test_a_naive_time_is_refused(store: Store) -> None:
    with pytest.raises(Exception, match="has no time zone"):
        store.begin_run(replace(run_record(), started_at=datetime(2026, 5, 19)))


def test_other_tools_read_the_view(store: Store, tmp_path: Path) -> None:
    run_id = store.begin_run(run_record())
    store.add_point(run_id, point_record())
    with sqlite3.connect(tmp_path / "results" / "store.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        row = connection.execute(
            "SELECT series, tp, interactivity, status, run_id, measured_at FROM measurements"
        ).fetchone()
    assert row == ("may", 2, 75.22, "running", run_id, "2026-05-19 12:30:15.000250")


def test_deleting_a_run_deletes_its_points(store: Store, tmp_path: Path) -> None:
    run_id = store.begin_run(run_record())
    store.add_point(run_id, point_record())
    with sqlite3.connect(tmp_path / "results" / "store.sqlite") as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM runs")
    assert store.series() == []
    assert list(store.rows()) == []


def test_times_are_utc(store: Store) -> None:
    east = datetime(2026, 5, 20, 1, tzinfo=timezone(timedelta(hours=9)))
    run_id = store.begin_run(run_record(started_at=east))
    store.add_point(run_id, point_record(measured_at=east))
    [row] = store.rows()
    assert row["measured_on"] == east
    assert row["measured_on"].tzinfo is UTC
    assert run_id.startswith("20260519T160000Z-")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("mysql://host/db", "store: mysql:// is no kind of store; name a folder or a postgresql"),
        ("", "store: its name is empty; name a folder"),
        ("postgresql://u:secret@host/db", "UPCURVE_TRACES: .* set UPCURVE_TRACES"),
    ],
)
def test_unusable_locations(location: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPCURVE_TRACES", raising=False)
    with pytest.raises(InputError, match=message) as raised:
        Store.open(location)
    assert "secret" not in str(raised.value)


def test_a_file_in_place_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"store: .*file: File exists; name a folder"):
        Store.open(tmp_path / "file")
    (tmp_path / "store.sqlite").write_text("this is no database, whatever its name says" * 50)
    with pytest.raises(InputError, match="not a database; name a folder that upcurve made"):
        Store.open(tmp_path)


def test_layouts_of_as_many_gpus_are_points_of_their_own(store: Store) -> None:
    run_id = store.begin_run(run_record())
    layouts: list[dict[str, Any]] = [
        {},
        {"ep": 2},
        {"tp": 1, "dp": 2},
        {"tp": 1, "dp": 2, "ep": 2},
        {"prefill_gpus": 1, "decode_gpus": 1, "repeat": 1},
    ]
    for number, layout in enumerate(layouts):
        store.add_point(run_id, point_record(tput_per_gpu=1000.0 + number, **layout))
    with pytest.raises(InputError):
        store.add_point(run_id, point_record(ep=2))
    store.end_run(run_id, "complete")
    found = store.completed("f" * 64, "may")
    assert {each[:5] for each in found} == {
        *((2, 1, 1, 2, 0), (2, 2, 1, 2, 0), (1, 1, 2, 2, 0), (1, 2, 2, 2, 0), (2, 1, 1, 2, 1)),
    }
    # None is taken for a repeat of another.
    points = store.points("may", isl=8192, osl=1024)
    assert [point.repeat for point in points] == [0, 0, 0, 0, 1]
    assert len(split_repeats(points).operating_points) == len(layouts)
    assert [point.place.layout for point in points] == [
        *("TP2", "TP2 EP2", "TP1 DP2", "TP1 EP2 DP2", "TP2 on 1 + 1 GPUs"),
    ]
