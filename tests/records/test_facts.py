"""Records as the comparison sees them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from upcurve.frontier.point import Facts
from upcurve.records.facts import as_point, facts
from upcurve.records.history import histories
from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.store import Store

DAY = datetime(2026, 3, 1, tzinfo=UTC)
PLAIN = PointRecord(8, 4, 2, 4, 16, DAY, tput_per_gpu=100.0, interactivity=40.0, repeat=3)
BUSY = replace(
    PLAIN,
    requests=64,
    failed=2,
    result={"client": {"saturated": True}, "output_length_ok": False},
    accuracy={"passed": True},
)


@pytest.mark.parametrize(
    ("record", "known"), [(PLAIN, Facts()), (BUSY, Facts(64, 2, True, False, True))]
)
def test_a_point_has_the_facts_that_the_store_gives_back(
    tmp_path: Path, record: PointRecord, known: Facts
) -> None:
    with Store.open(tmp_path / "store") as store:
        run = store.begin_run(RunRecord("x", "bench", "f", "M", "MI355X", DAY))
        store.add_point(run, record)
        store.end_run(run, "complete", DAY)
        (stored,) = store.points("x", 8, 4)
        found = store.facts([stored.id or 0])
        (history,) = histories(store, ["x"])
    assert found == {stored.id: known}
    (measurement,) = history.builds[0].measurements
    assert (measurement.point.facts, measurement.fingerprint) == (known, "f")
    assert as_point(record) == stored
    assert as_point(record).facts == known


def test_nothing_is_known_of_an_empty_result() -> None:
    assert facts(None, None, None) == facts(None, None, {"client": None}, {}) == Facts()
