"""What a reader of a whole store asks, against the store's own answers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.records.examples import NOON, point_record, run_record
from upcurve.records.browse import (
    ablation_recipes,
    added,
    figures,
    highest_point,
    measured,
    run_details,
    run_of_point,
    run_summaries,
    store_version,
)
from upcurve.records.folder import log_tail
from upcurve.records.rows import import_rows
from upcurve.records.store import Store


def test_the_version_changes_with_every_write_of_anyone_and_with_nothing_else(
    tmp_path: Path,
) -> None:
    with Store.open(tmp_path) as store, Store.open(tmp_path) as writer:
        seen = [store_version(store)]

        def changed() -> bool:
            seen.append(store_version(store))
            assert store_version(store) == seen[-1]
            return seen[-1] != seen[-2] and len(set(seen)) == len(seen)

        run = writer.begin_run(run_record())
        assert changed()
        # Within one tick of the file system's clock, and without the log growing.
        for concurrency in range(1, 30):
            writer.add_point(run, point_record(concurrency=concurrency))
            assert changed()
        writer.end_run(run, "complete")
        assert changed()
        store.series()
        Store.open(tmp_path, create=False).close()
        assert store_version(store) == seen[-1]


def test_runs_and_points_are_counted_as_the_store_counts_them(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        import_rows(store, "published:mi355x-qwen35")
        bad = {"task": "t", "passed": False}
        run = store.begin_run(run_record(series="new"))
        point = store.add_point(run, point_record(accuracy=bad))
        store.add_point(run, point_record(isl=64, accuracy={"task": "t", "passed": True}))
        summaries = {each.name: each for each in store.series()}
        found, highest = measured(store)
        assert highest == highest_point(store) == point + 1
        series = {each.id: each.series for each in run_summaries(store)}
        counts = dict.fromkeys(summaries, 0)
        for each in found:
            counts[series[each.run]] += each.points
        assert counts == {name: each.points for name, each in summaries.items()}
        of_run = {(each.isl, each.checked, each.failed) for each in found if each.run == run}
        assert of_run == {(8192, 1, 1), (64, 1, 0)}
        later, _ = measured(store, after=point)
        assert [(each.isl, each.points) for each in later] == [(64, 1)]
        assert added(store, point, 10) == [(point + 1, run)]
        assert added(store, 0, 1) == [(point + 1, run)]
        assert (run_of_point(store, point), run_of_point(store, 999)) == (run, None)
        assert run_details(store, "nope") is None
        details = run_details(store, run)
        assert details
        assert (details.host["name"], details.gpus[0]["name"]) == ("node1", "MI355X")


def test_figures_are_the_points_of_the_store_with_repeats_numbered_alike(tmp_path: Path) -> None:
    power = {"power": {"totals": {"joules_per_output_token": 2.0, "energy_valid": True}}}
    with Store.open(tmp_path) as store:
        runs = []
        for hour in range(3):
            run = store.begin_run(run_record(started_at=NOON + timedelta(hours=hour)))
            runs.append(run)
            for repeat in range(2):
                at = NOON + timedelta(hours=hour, minutes=repeat)
                result = {"e2e_ms": {"p50": 900.0 + hour}, **power}
                store.add_point(
                    run,
                    point_record(
                        repeat=repeat, measured_at=at, result=result, output_tput_per_gpu=50.0
                    ),
                )
        found = figures(store, runs, 8192, 1024, detailed=True)
        assert [each.point for each in found] == store.points("may", 8192, 1024)
        assert [each.point.repeat for each in found] == [0, 1, 2, 3, 4, 5]
        assert {each.e2e_ms for each in found} == {900.0, 901.0, 902.0}
        assert {each.watts_per_gpu for each in found} == {100.0}
        plain = figures(store, runs)
        assert {(each.e2e_ms, each.watts_per_gpu) for each in plain} == {(None, None)}
        assert figures(store, runs, 64, 32) == []


def test_recipes_of_ablations_are_found_and_no_others(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.begin_run(run_record())
        asked = {"switches": ["a"], "on": [], "design": "full", "seed": 0, "round": 0}
        run = store.begin_run(run_record(recipe={"name": "x", "ablation": asked}))
        assert ablation_recipes(store) == [(run, {"name": "x", "ablation": asked})]


@pytest.mark.parametrize("size", [0, 5, 12, 1000])
def test_the_end_of_a_log_begins_with_a_whole_line(tmp_path: Path, size: int) -> None:
    with Store.open(tmp_path) as store:
        text = "one\ntwo \xe9\nthree\n"
        store.log_path("r").write_bytes(text.encode("latin-1"))
        found = log_tail(store.root, "r", size)
        assert found
        shown, count, whole = found
        assert whole == len(text)
        assert text.replace("\xe9", "\ufffd").endswith(shown)
        assert count <= size
        assert shown == "" or shown[0] in "ot"
        assert log_tail(store.root, "none", size) is None
