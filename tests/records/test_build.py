from __future__ import annotations

import pytest

from tests.records.examples import add_run
from upcurve.records.build import differences
from upcurve.records.history import histories
from upcurve.records.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store") as opened:
        yield opened


def test_equal_labels_are_told_apart(store):
    for day, image in ((0, "a"), (1, "b"), (1, "c")):
        add_run(store, day=day, image=image)
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

    add_run(store, **facts(["serve", "--tp", "8", "--fast"], "AMD 1", {"NCCL_X": "1"}))
    add_run(
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
