from __future__ import annotations

from pathlib import Path

import pytest

from upcurve.load.telemetry import sysfs
from upcurve.load.telemetry.sysfs import SysfsBackend


def card(folder: Path, number: int, vendor: str, files: dict[str, str]) -> None:
    device = folder / f"card{number}" / "device"
    for name, text in {"vendor": vendor, **files}.items():
        file = device / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")


SENSORS = {
    "device": "0x74a1",
    "unique_id": "4c7d2f8e0a1b3c5d",
    "mem_info_vram_total": "206141652992",
    "mem_info_vram_used": "150000000000",
    "hwmon/hwmon7/power1_average": "412000000",
    "hwmon/hwmon7/power1_cap": "750000000",
    "hwmon/hwmon7/freq1_input": "2100000000",
    "hwmon/hwmon7/freq2_input": "1300000000",
    "hwmon/hwmon7/temp1_input": "50000",
    "hwmon/hwmon7/temp2_input": "71000",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As a machine with a display adapter of another vendor and three GPUs has it."""
    card(tmp_path, 0, "0x1a03", {"device": "0x2000"})
    card(tmp_path, 10, "0x1002", {**SENSORS, "product_name": "third"})
    card(tmp_path, 1, "0x1002", SENSORS)
    present = {"hwmon/hwmon9/power1_input": "33000000", "product_name": "Radeon"}
    card(tmp_path, 2, "0x1002", present)
    (tmp_path / "card1-DP-1").mkdir()
    (tmp_path / "renderD128").mkdir()
    return tmp_path


def test_cards_of_the_vendor_in_order(folder: Path) -> None:
    devices = SysfsBackend(folder).devices()
    assert [each.name for each in devices] == ["AMD GPU 0x74a1", "Radeon", "third"]
    assert [each.index for each in devices] == [0, 1, 2]
    assert devices[0].uuid == "4c7d2f8e0a1b3c5d"
    assert devices[0].memory_total_bytes == 206_141_652_992
    assert devices[0].power_limit_w == pytest.approx(750)


def test_units(folder: Path) -> None:
    backend = SysfsBackend(folder)
    sample = backend.sample(0)
    assert sample.power_w == pytest.approx(412)
    assert sample.sm_clock_mhz == pytest.approx(2100)
    assert sample.memory_clock_mhz == pytest.approx(1300)
    assert sample.memory_used_bytes == 150_000_000_000
    assert sample.temperature_c == pytest.approx(71)
    assert sample.throttle is None


def test_what_is_absent_is_none(folder: Path) -> None:
    backend = SysfsBackend(folder)
    sample = backend.sample(1)
    assert sample.power_w == pytest.approx(33), "the present power, where no average is told"
    assert sample.sm_clock_mhz is sample.memory_used_bytes is sample.temperature_c is None
    assert backend.devices()[1].memory_total_bytes is None
    (folder / "card1/device/hwmon/hwmon7/power1_average").write_text("garbage")
    (folder / "card1/device/mem_info_vram_used").unlink()
    sample = backend.sample(0)
    assert sample.power_w is sample.memory_used_bytes is None
    assert sample.sm_clock_mhz == pytest.approx(2100)


def test_values_are_read_anew(folder: Path) -> None:
    backend = SysfsBackend(folder)
    (folder / "card1/device/hwmon/hwmon7/power1_average").write_text("600000000\n")
    assert backend.sample(0).power_w == pytest.approx(600)


def test_open(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysfs, "DRM", folder)
    assert SysfsBackend.open() is not None
    monkeypatch.setattr(sysfs, "DRM", tmp_path / "absent")
    assert SysfsBackend.open() is None
