"""AMD GPUs, by AMD SMI (the Python package that ROCm ships).

Functions and units: https://rocm.docs.amd.com/projects/amdsmi/en/latest/reference/amdsmi-py-api.html
"""

from __future__ import annotations

import importlib
import io
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from upcurve.load.telemetry.device import GpuIdentity, GpuSample, scaled

VIOLATIONS = {
    "active_ppt_pwr": "package_power",
    "active_socket_thrm": "socket_thermal",
    "active_vr_thrm": "vr_thermal",
    "active_hbm_thrm": "hbm_thermal",
    "active_prochot_thrm": "processor_hot",
}
"""Fields of amdsmi_get_violation_status, from Instinct MI300 on."""

_NO_VALUE = frozenset({0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF})
"""What stands for "not supported" where the package passes the driver's integer through."""


class AmdSmiBackend:
    """All AMD GPUs of this machine."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._handles = library.amdsmi_get_processor_handles()

    @classmethod
    def open(cls) -> AmdSmiBackend | None:
        """Return the backend; None where library, driver, permission or GPU is missing."""
        try:
            with redirect_stdout(io.StringIO()):  # where it prints that it has no shared library
                library: Any = importlib.import_module("amdsmi")
        except (ImportError, OSError, KeyError):  # what follows from that
            return None
        try:
            library.amdsmi_init()
            backend = cls(library)
        except library.AmdSmiException:
            return None
        return backend if backend._handles else None

    def devices(self) -> list[GpuIdentity]:
        """Return all GPUs."""
        return [self._identity(index, handle) for index, handle in enumerate(self._handles)]

    def sample(self, index: int) -> GpuSample:
        """Return the present state of one GPU."""
        handle, library = self._handles[index], self._library
        power = self._ask("amdsmi_get_power_info", handle)
        # Which of them is told depends on the GPU's generation; the others are 0 or no number.
        powers = ("socket_power", "current_socket_power", "average_socket_power")
        return GpuSample(
            time_ns=time.perf_counter_ns(),
            power_w=next((value for name in powers if (value := _field(power, name))), None),
            sm_clock_mhz=self._clock(handle, library.AmdSmiClkType.GFX),
            memory_clock_mhz=self._clock(handle, library.AmdSmiClkType.MEM),
            memory_used_bytes=self._ask(
                "amdsmi_get_gpu_memory_usage", handle, library.AmdSmiMemoryType.VRAM
            ),
            temperature_c=self._temperature(handle),
            throttle=self._violations(handle),
        )

    def energy_j(self, index: int) -> float | None:
        """Return the energy of the GPU's accumulator, of which a count is some uJ, in J."""
        answer = self._ask("amdsmi_get_energy_count", self._handles[index])
        count = _field(answer, "energy_accumulator", "power")
        resolution_uj = _field(answer, "counter_resolution")
        return count * resolution_uj * 1e-6 if count and resolution_uj else None

    def close(self) -> None:
        """Let go of the driver."""
        self._ask("amdsmi_shut_down")

    def _identity(self, index: int, handle: Any) -> GpuIdentity:
        asic = self._ask("amdsmi_get_gpu_asic_info", handle) or {}
        driver = self._ask("amdsmi_get_gpu_driver_info", handle) or {}
        cap_uw = _field(self._ask("amdsmi_get_power_cap_info", handle), "power_cap")
        return GpuIdentity(
            index=index,
            name=asic.get("market_name") or "unknown",
            uuid=self._ask("amdsmi_get_gpu_device_uuid", handle),
            memory_total_bytes=self._ask(
                "amdsmi_get_gpu_memory_total", handle, self._library.AmdSmiMemoryType.VRAM
            ),
            power_limit_w=scaled(cap_uw, 1e-6),
            driver=driver.get("driver_version"),
        )

    def _clock(self, handle: Any, kind: Any) -> float | None:
        return _field(self._ask("amdsmi_get_clock_info", handle, kind), "clk", "cur_clk")

    def _temperature(self, handle: Any) -> float | None:
        """Return the hottest spot in degrees Celsius, or the edge where it is not told."""
        library = self._library
        for sensor in (library.AmdSmiTemperatureType.HOTSPOT, library.AmdSmiTemperatureType.EDGE):
            metric = library.AmdSmiTemperatureMetric.CURRENT
            value = _number(self._ask("amdsmi_get_temp_metric", handle, sensor, metric))
            if value is not None:
                return value
        return None

    def _violations(self, handle: Any) -> tuple[str, ...] | None:
        status = self._ask("amdsmi_get_violation_status", handle)
        told = {name: (status or {}).get(name) for name in VIOLATIONS}
        if not any(value in (0, 1) for value in told.values()):
            return None
        return tuple(VIOLATIONS[name] for name, value in told.items() if value == 1)

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Return the driver's answer; None where it has none, or the library no such question."""
        try:
            return getattr(self._library, name)(*arguments)
        except (self._library.AmdSmiException, AttributeError):
            return None


def _field(answer: Mapping[str, Any] | None, *names: str) -> float | None:
    """Return the first of these fields that holds a number; their names changed over versions."""
    values = (_number((answer or {}).get(name)) for name in names)
    return next((value for value in values if value is not None), None)


def _number(value: Any) -> float | None:
    """What is not supported is "N/A", or all bits are set."""
    return value if isinstance(value, (int, float)) and value not in _NO_VALUE else None
