"""A library that answers as AMD SMI 7.0 is documented to; the package comes with ROCm alone."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from upcurve.load.telemetry.amd import AmdSmiBackend


class SmiError(Exception):
    pass


class ClkType(enum.IntEnum):
    GFX = 1
    MEM = 5


class TemperatureType(enum.IntEnum):
    EDGE = 0
    HOTSPOT = 1


class Kind(enum.IntEnum):
    VRAM = 0
    CURRENT = 0


def refuse(*_: Any) -> Any:
    raise SmiError("not supported")


def instinct() -> SimpleNamespace:
    """Two MI300X."""
    return SimpleNamespace(
        AmdSmiException=SmiError,
        AmdSmiClkType=ClkType,
        AmdSmiTemperatureType=TemperatureType,
        AmdSmiTemperatureMetric=Kind,
        AmdSmiMemoryType=Kind,
        amdsmi_init=lambda: None,
        amdsmi_shut_down=lambda: None,
        amdsmi_get_processor_handles=lambda: ["first", "second"],
        amdsmi_get_gpu_asic_info=lambda _: {"market_name": "AMD Instinct MI300X"},
        amdsmi_get_gpu_driver_info=lambda _: {"driver_version": "6.12.12"},
        amdsmi_get_gpu_device_uuid=lambda handle: f"uuid-{handle}",
        amdsmi_get_power_cap_info=lambda _: {"power_cap": 750_000_000},
        amdsmi_get_gpu_memory_total=lambda _, kind: 206_141_652_992,
        amdsmi_get_gpu_memory_usage=lambda _, kind: 150_000_000_000,
        amdsmi_get_power_info=lambda _: {
            "socket_power": 612,
            "current_socket_power": 612,
            "average_socket_power": "N/A",
        },
        amdsmi_get_clock_info=lambda _, kind: {"clk": 2100 if kind == ClkType.GFX else 1300},
        amdsmi_get_temp_metric=lambda _, sensor, metric: 71 if sensor else 50,
        amdsmi_get_violation_status=lambda _: {
            "active_ppt_pwr": True,
            "active_socket_thrm": False,
            "active_vr_thrm": "N/A",
            "active_hbm_thrm": True,
            "active_prochot_thrm": False,
        },
        amdsmi_get_energy_count=lambda _: {
            "energy_accumulator": 2_000_000_000,
            "counter_resolution": 15.259,
            "timestamp": 1,
        },
    )


def opened(library: Any, monkeypatch: pytest.MonkeyPatch) -> AmdSmiBackend | None:
    monkeypatch.setitem(sys.modules, "amdsmi", library)
    return AmdSmiBackend.open()


def test_units(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = opened(instinct(), monkeypatch)
    assert backend is not None
    first, second = backend.devices()
    assert (first.index, second.index) == (0, 1)
    assert (first.name, second.uuid) == ("AMD Instinct MI300X", "uuid-second")
    assert first.power_limit_w == pytest.approx(750)
    assert first.memory_total_bytes == 206_141_652_992
    assert first.driver == "6.12.12"
    sample = backend.sample(1)
    assert sample.power_w == 612
    assert (sample.sm_clock_mhz, sample.memory_clock_mhz) == (2100, 1300)
    assert sample.memory_used_bytes == 150_000_000_000
    assert sample.temperature_c == 71
    assert sample.throttle == ("package_power", "hbm_thermal")
    assert backend.energy_j(0) == pytest.approx(30_518)


def test_older_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    library = instinct()
    library.amdsmi_get_power_info = lambda _: {
        "current_socket_power": 65535,
        "average_socket_power": 240,
    }
    library.amdsmi_get_clock_info = lambda _, kind: {"cur_clk": 1700}
    library.amdsmi_get_energy_count = lambda _: {"power": 10**6, "counter_resolution": 15.0}
    library.amdsmi_get_temp_metric = lambda _, sensor, metric: refuse() if sensor else 50
    del library.amdsmi_get_violation_status
    backend = opened(library, monkeypatch)
    assert backend is not None
    sample = backend.sample(0)
    assert sample.power_w == 240
    assert sample.sm_clock_mhz == 1700
    assert sample.temperature_c == 50
    assert sample.throttle is None
    assert backend.energy_j(0) == pytest.approx(15)


def test_what_is_not_supported_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    library = instinct()
    for name in vars(library):
        if name.startswith("amdsmi_get_") and name != "amdsmi_get_processor_handles":
            setattr(library, name, refuse)
    backend = opened(library, monkeypatch)
    assert backend is not None
    assert backend.devices()[0].name == "unknown"
    assert backend.devices()[0].power_limit_w is None
    sample = backend.sample(0)
    assert sample.power_w is sample.sm_clock_mhz is sample.memory_used_bytes is None
    assert sample.temperature_c is sample.throttle is None
    assert backend.energy_j(0) is None


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    library = instinct()
    library.amdsmi_init = refuse
    assert opened(library, monkeypatch) is None
    library = instinct()
    library.amdsmi_get_processor_handles = list
    assert opened(library, monkeypatch) is None
    assert opened(None, monkeypatch) is None


def test_a_package_without_its_library_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "amdsmi.py").write_text("print('no libamd_smi.so')\nraise KeyError('lib')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "amdsmi", raising=False)
    assert AmdSmiBackend.open() is None
    assert capsys.readouterr().out == "", "standard output is for results"
