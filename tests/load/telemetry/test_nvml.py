"""The driver's answers are put in the place of its C calls; names and errors are the library's."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from upcurve.load.telemetry.nvml import REASONS, NvmlBackend


def refuse(error: int) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise pynvml.NVMLError(error)

    return call


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces calls of the library, which has to have them."""

    def answer(**calls: Any) -> None:
        for name, value in calls.items():
            function = value if callable(value) else (lambda *_, value=value: value)
            monkeypatch.setattr(pynvml, name, function)

    answer(
        nvmlInit=None,
        nvmlShutdown=None,
        nvmlDeviceGetCount=2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlSystemGetDriverVersion="570.172.08",
        nvmlDeviceGetName=lambda handle: f"NVIDIA H200 {handle}",
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}",
        nvmlDeviceGetEnforcedPowerLimit=700_000,
        nvmlDeviceGetMemoryInfo=SimpleNamespace(total=150_000_000_000, used=99_000_000_000),
        nvmlDeviceGetPowerUsage=lambda handle: 312_500 + handle,
        nvmlDeviceGetClockInfo=lambda _, kind: {1: 1980, 2: 3201}[kind],
        nvmlDeviceGetTemperature=lambda _, sensor: {0: 61}[sensor],
        nvmlDeviceGetCurrentClocksEventReasons=0x4 | 0x40,
        nvmlDeviceGetTotalEnergyConsumption=123_456_789,
    )
    return answer


def test_units(driver: Callable[..., None]) -> None:
    backend = NvmlBackend.open()
    assert backend is not None
    first, second = backend.devices()
    assert (first.index, first.name, first.uuid) == (0, "NVIDIA H200 0", "GPU-0")
    assert (second.index, second.name, second.uuid) == (1, "NVIDIA H200 1", "GPU-1")
    assert first.memory_total_bytes == 150_000_000_000
    assert first.power_limit_w == pytest.approx(700)
    assert first.driver == "570.172.08"
    sample = backend.sample(1)
    assert sample.power_w == pytest.approx(312.501)
    assert (sample.sm_clock_mhz, sample.memory_clock_mhz) == (1980, 3201)
    assert sample.memory_used_bytes == 99_000_000_000
    assert sample.temperature_c == 61
    assert sample.throttle == ("sw_power_cap", "hw_thermal_slowdown")
    assert backend.energy_j(0) == pytest.approx(123_456.789)


def test_bits_are_the_library_s() -> None:
    names = {
        "gpu_idle": "GpuIdle",
        "applications_clocks_setting": "ApplicationsClocksSetting",
        "sw_power_cap": "SwPowerCap",
        "hw_slowdown": "HwSlowdown",
        "sync_boost": "SyncBoost",
        "sw_thermal_slowdown": "SwThermalSlowdown",
        "hw_thermal_slowdown": "HwThermalSlowdown",
        "hw_power_brake_slowdown": "HwPowerBrakeSlowdown",
        "display_clock_setting": "DisplayClockSetting",
    }
    assert {
        getattr(pynvml, f"nvmlClocksEventReason{name}"): reason for reason, name in names.items()
    } == REASONS


def test_what_is_not_supported_is_none(driver: Callable[..., None]) -> None:
    unsupported = refuse(pynvml.NVML_ERROR_NOT_SUPPORTED)
    driver(
        nvmlDeviceGetPowerUsage=unsupported,
        nvmlDeviceGetClockInfo=refuse(pynvml.NVML_ERROR_GPU_IS_LOST),
        nvmlDeviceGetMemoryInfo=unsupported,
        nvmlDeviceGetTemperature=unsupported,
        nvmlDeviceGetCurrentClocksEventReasons=unsupported,
        nvmlDeviceGetCurrentClocksThrottleReasons=unsupported,
        nvmlDeviceGetTotalEnergyConsumption=unsupported,
        nvmlDeviceGetEnforcedPowerLimit=unsupported,
        nvmlShutdown=refuse(pynvml.NVML_ERROR_UNINITIALIZED),
    )
    backend = NvmlBackend.open()
    assert backend is not None
    sample = backend.sample(0)
    assert sample.power_w is sample.sm_clock_mhz is sample.memory_used_bytes is None
    assert sample.temperature_c is sample.throttle is None
    assert backend.energy_j(0) is None
    assert backend.devices()[0].power_limit_w is None
    assert backend.devices()[0].memory_total_bytes is None
    backend.close()


def test_older_drivers(driver: Callable[..., None]) -> None:
    driver(
        nvmlDeviceGetCurrentClocksEventReasons=refuse(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND),
        nvmlDeviceGetCurrentClocksThrottleReasons=0x1,
        nvmlDeviceGetName=b"Tesla V100",
    )
    backend = NvmlBackend.open()
    assert backend is not None
    assert backend.sample(0).throttle == ("gpu_idle",)
    assert backend.devices()[0].name == "Tesla V100"


@pytest.mark.parametrize(
    "error",
    [
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    ],
)
def test_no_driver(driver: Callable[..., None], error: int) -> None:
    driver(nvmlInit=refuse(error))
    assert NvmlBackend.open() is None


def test_no_gpu(driver: Callable[..., None]) -> None:
    driver(nvmlDeviceGetCount=0)
    assert NvmlBackend.open() is None
    driver(nvmlDeviceGetCount=1, nvmlDeviceGetHandleByIndex=refuse(pynvml.NVML_ERROR_NO_PERMISSION))
    assert NvmlBackend.open() is None


def test_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert NvmlBackend.open() is None


def test_the_present_power_is_preferred_to_its_average(driver: Callable[..., None]) -> None:
    backend = NvmlBackend.open()
    assert backend is not None
    asked = []

    def fields(handle: int, wanted: list[int]) -> list[SimpleNamespace]:
        asked.append(wanted)
        status = 0 if handle == 0 else pynvml.NVML_ERROR_NOT_SUPPORTED
        return [SimpleNamespace(nvmlReturn=status, value=SimpleNamespace(uiVal=650_250))]

    driver(nvmlDeviceGetFieldValues=fields)
    assert backend.sample(0).power_w == pytest.approx(650.25)
    assert backend.sample(1).power_w == pytest.approx(312.501)
    assert asked == [[pynvml.NVML_FI_DEV_POWER_INSTANT]] * 2
