"""A store as it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.records.examples import NOON, point_record, run_record
from upcurve.errors import InputError
from upcurve.frontier.point import Point
from upcurve.records.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "results") as opened:
        yield opened


def test_points_are_the_frontiers_points(store: Store) -> None:
    run_id = store.begin_run(run_record())
    store.add_point(run_id, point_record())
    store.add_point(run_id, point_record(isl=1024, tput_per_gpu=9.0))
    assert store.points("may", 8192, 1024) == [Point(75.22, 1267.5, 2, 2, 4, 0)]
    assert store.points("may", isl=1024) == [Point(75.22, 9.0, 2, 2, 4, 0)]
    assert len(store.points("may")) == 2
    assert store.points("may", isl=77) == []


def test_repeats_count_on_over_runs_of_one_fingerprint_only(store: Store) -> None:
    for number, fingerprint in enumerate(["a", "a", "b"]):
        run_id = store.begin_run(run_record(fingerprint=fingerprint))
        later = NOON + timedelta(hours=number)
        store.add_point(run_id, point_record(measured_at=later, tput_per_gpu=100.0 + number))
    assert [(point.tput_per_gpu, point.repeat) for point in store.points("may")] == [
        (100.0, 0),
        (101.0, 1),
        (102.0, 0),
    ]
    assert store.fingerprints("may") == {"a", "b"}
    assert store.fingerprints("may", isl=77) == frozenset()


def test_completed_is_what_one_fingerprint_measured(store: Store) -> None:
    run_id = store.begin_run(run_record(fingerprint="a"))
    store.add_point(run_id, point_record(repeat=1))
    store.end_run(run_id, "interrupted", "Ctrl-C")
    other = store.begin_run(run_record(fingerprint="b"))
    store.add_point(other, point_record(repeat=2))
    assert store.completed("a", "may") == {(2, 1, 1, 2, 0, 4, 8192, 1024, 1)}
    assert store.completed("a", "apr") == set()


def test_series_are_summed_up(store: Store) -> None:
    first = store.begin_run(run_record(series="apr", fingerprint="a"))
    store.add_points(first, [point_record(concurrency=c) for c in (4, 8)])
    second = store.begin_run(run_record(series="apr", fingerprint="b", hardware="H200"))
    store.add_point(second, point_record(isl=1024, measured_at=NOON - timedelta(days=2)))
    store.begin_run(run_record(series="empty"))
    apr, empty = store.series()
    assert (apr.name, apr.models, apr.hardware) == (
        "apr",
        ("Qwen3.5-397B-A17B",),
        ("H200", "MI355X"),
    )
    assert apr.workloads == {(8192, 1024), (1024, 1024)}
    assert (apr.runs, apr.points, apr.fingerprints) == (2, 3, {"a", "b"})
    assert (apr.first_measured_on, apr.last_measured_on) == (date(2026, 5, 17), date(2026, 5, 19))
    assert (empty.points, empty.workloads, empty.first_measured_on) == (0, frozenset(), None)


def test_rows_are_flat_and_in_order(store: Store) -> None:
    run_id = store.begin_run(run_record())
    store.add_points(run_id, [point_record(concurrency=c) for c in (8, 4)])
    first, second = store.rows()
    assert (first["concurrency"], second["concurrency"]) == (8, 4)
    assert (first["run"], first["measured_on"], first["devices"]) == (
        run_id,
        NOON,
        [{"name": "MI355X", "memory_mib": 294912}],
    )
    assert list(store.rows(["may"])) == [first, second]


def test_what_is_not_there_is_said(store: Store) -> None:
    with pytest.raises(InputError, match=r"series 'may': not in the store .*; it is empty"):
        store.points("may")
    run_id = store.begin_run(run_record())
    bare = store.add_point(run_id, point_record())
    with pytest.raises(InputError, match=r"series 'june': not in the store .*; it holds may"):
        store.points("june")
    with pytest.raises(InputError, match="series 'june'"):
        list(store.rows(["may", "june"]))
    with pytest.raises(InputError, match=f"point {bare}: it was stored without a trace"):
        store.trace(bare)
    with pytest.raises(InputError, match="point 99: there is no such point"):
        store.trace(99)
