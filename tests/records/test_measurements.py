from __future__ import annotations

import pytest

from tests.records.examples import add_run
from upcurve.records.measurements import measurements
from upcurve.records.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store") as opened:
        yield opened


def test_repeats_of_other_settings_are_no_repeats(store):
    add_run(store)
    add_run(store, day=1, fingerprint="g" * 64)
    assert [each.point.repeat for each in measurements(store.rows())] == [0, 0]


def test_layouts_of_as_many_gpus_are_no_repeats(store):
    layouts = [{}, {"ep": 2}, {"prefill_gpus": 1, "decode_gpus": 1, "repeat": 1}]
    add_run(store, points=layouts)
    found = [each.point for each in measurements(store.rows())]
    assert [(each.repeat, each.ep, each.prefill_gpus) for each in found] == [
        *((0, 1, None), (0, 2, None), (1, 1, 1)),
    ]
    assert len({each.place for each in found}) == 3


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
    add_run(store, points=points)
    found = {each.point.concurrency: each.watts_per_gpu for each in measurements(store.rows())}
    assert found == {1: 200.0, 2: None, 3: None, 4: None}
