"""NVIDIA GPUs, by the driver's management library (package nvidia-ml-py).

Units and bits: https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import importlib
import time
from typing import Any

from upcurve.load.telemetry.device import GpuIdentity, GpuSample, scaled

REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""Bits of nvmlClocksEventReasons."""


_POWER_INSTANT = 186
"""NVML_FI_DEV_POWER_INSTANT, in mW."""


class NvmlBackend:
    """All NVIDIA GPUs of this machine. CUDA_VISIBLE_DEVICES does not change how they are counted.

    Power is the present one, where the driver has that field; else what nvmlDeviceGetPowerUsage
    says, which from Ampere on is the average of the last second.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        count = library.nvmlDeviceGetCount()
        self._handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]

    @classmethod
    def open(cls) -> NvmlBackend | None:
        """Return the backend; None where library, driver, permission or GPU is missing."""
        try:
            library: Any = importlib.import_module("pynvml")
        except ImportError:
            return None
        try:
            library.nvmlInit()
            backend = cls(library)
        except library.NVMLError:
            return None
        return backend if backend._handles else None

    def devices(self) -> list[GpuIdentity]:
        """Return all GPUs."""
        driver = _text(self._ask("nvmlSystemGetDriverVersion"))
        return [
            GpuIdentity(
                index=index,
                name=_text(self._ask("nvmlDeviceGetName", handle)) or "unknown",
                uuid=_text(self._ask("nvmlDeviceGetUUID", handle)),
                memory_total_bytes=getattr(self._memory(handle), "total", None),
                power_limit_w=scaled(self._ask("nvmlDeviceGetEnforcedPowerLimit", handle), 1e-3),
                driver=driver,
            )
            for index, handle in enumerate(self._handles)
        ]

    def sample(self, index: int) -> GpuSample:
        """Return the present state of one GPU."""
        handle, library = self._handles[index], self._library
        return GpuSample(
            time_ns=time.perf_counter_ns(),
            power_w=self._power_w(handle),
            sm_clock_mhz=self._ask("nvmlDeviceGetClockInfo", handle, library.NVML_CLOCK_SM),
            memory_clock_mhz=self._ask("nvmlDeviceGetClockInfo", handle, library.NVML_CLOCK_MEM),
            memory_used_bytes=getattr(self._memory(handle), "used", None),
            temperature_c=self._ask(
                "nvmlDeviceGetTemperature", handle, library.NVML_TEMPERATURE_GPU
            ),
            throttle=self._reasons(handle),
        )

    def energy_j(self, index: int) -> float | None:
        """Return the energy used since the driver was loaded (Volta and later), in J."""
        handle = self._handles[index]
        return scaled(self._ask("nvmlDeviceGetTotalEnergyConsumption", handle), 1e-3)

    def close(self) -> None:
        """Let go of the driver."""
        self._ask("nvmlShutdown")

    def _power_w(self, handle: Any) -> float | None:
        fields = self._ask("nvmlDeviceGetFieldValues", handle, [_POWER_INSTANT])
        if fields and fields[0].nvmlReturn == 0 and fields[0].value.uiVal > 0:
            return float(fields[0].value.uiVal) / 1e3
        return scaled(self._ask("nvmlDeviceGetPowerUsage", handle), 1e-3)

    def _memory(self, handle: Any) -> Any:
        return self._ask("nvmlDeviceGetMemoryInfo", handle)

    def _reasons(self, handle: Any) -> tuple[str, ...] | None:
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if bits is None:  # the name before driver 535
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        if bits is None:
            return None
        return tuple(reason for bit, reason in REASONS.items() if bits & bit)

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Return the driver's answer; None where it has none, or the library no such question."""
        try:
            return getattr(self._library, name)(*arguments)
        except (self._library.NVMLError, AttributeError):
            return None


def _text(value: str | bytes | None) -> str | None:
    """Older versions of the library answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value
