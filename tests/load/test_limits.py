from __future__ import annotations

from dataclasses import replace

import pytest

from upcurve.load.limits import Limits, Machine, default_path

MACHINE = Machine.this(workers=1)
LIMITS = Limits(
    MACHINE, "2026-11-23T10:00:00+00:00", 40_000.0, 1024, [{"streams": 1, "strain": 0.1}]
)


def test_limits_come_back(tmp_path):
    file = tmp_path / "folder" / "calibration.json"
    LIMITS.save(file)
    assert Limits.load(file, MACHINE) == LIMITS
    assert [each.name for each in file.parent.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(
    "change", [{"workers": 2}, {"cores": 99}, {"node": "other"}, {"upcurve": "0"}, {"cpu": "8086"}]
)
def test_limits_of_another_machine_are_none_of_ours(tmp_path, change):
    LIMITS.save(tmp_path / "c.json")
    assert Limits.load(tmp_path / "c.json", replace(MACHINE, **change)) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"machine": 3}'])
def test_a_file_that_is_no_calibration_is_none(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    assert Limits.load(tmp_path / "c.json", MACHINE) is None
    assert Limits.load(tmp_path / "missing.json", MACHINE) is None


def test_the_share_is_of_the_rate():
    assert LIMITS.share(10_000) == 0.25
    assert LIMITS.facts()["chunks_per_s"] == 40_000
    assert LIMITS.facts()["cores"] == MACHINE.cores


def test_where_it_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("UPCURVE_CALIBRATION", str(tmp_path / "x.json"))
    assert default_path() == tmp_path / "x.json"
    monkeypatch.delenv("UPCURVE_CALIBRATION")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "upcurve" / "calibration.json"
