"""AMD GPUs, by what the kernel's amdgpu driver shows as files.

Files and units: https://docs.kernel.org/gpu/amdgpu/thermal.html
"""

from __future__ import annotations

import time
from pathlib import Path

from upcurve.load.telemetry.device import GpuIdentity, GpuSample, scaled

DRM = Path("/sys/class/drm")
MODULE_VERSION = Path("/sys/module/amdgpu/version")

_AMD = "0x1002"
"""PCI vendor."""


class SysfsBackend:
    """All AMD GPUs of this machine, counted in the order of their cards.

    The files tell neither an energy counter nor reasons for throttling.
    """

    def __init__(self, folder: Path) -> None:
        cards = (each for each in folder.glob("card*") if each.name[4:].isdigit())
        devices = [each / "device" for each in sorted(cards, key=lambda each: int(each.name[4:]))]
        self._devices = [each for each in devices if _text(each / "vendor") == _AMD]
        self._sensors = [next(each.glob("hwmon/hwmon*"), each) for each in self._devices]

    @classmethod
    def open(cls) -> SysfsBackend | None:
        """Return the backend; None where there is no GPU."""
        backend = cls(DRM)
        return backend if backend._devices else None

    def devices(self) -> list[GpuIdentity]:
        """Return all GPUs."""
        return [
            GpuIdentity(
                index=index,
                name=_text(device / "product_name") or f"AMD GPU {_text(device / 'device')}",
                uuid=_text(device / "unique_id"),
                memory_total_bytes=_integer(device / "mem_info_vram_total"),
                power_limit_w=scaled(_integer(sensors / "power1_cap"), 1e-6),
                driver=_text(MODULE_VERSION),
            )
            for index, (device, sensors) in enumerate(
                zip(self._devices, self._sensors, strict=True)
            )
        ]

    def sample(self, index: int) -> GpuSample:
        """Return the present state of one GPU."""
        sensors = self._sensors[index]
        power_uw = _integer(sensors / "power1_average")
        if power_uw is None:  # GPUs that tell the present power alone
            power_uw = _integer(sensors / "power1_input")
        return GpuSample(
            time_ns=time.perf_counter_ns(),
            power_w=scaled(power_uw, 1e-6),
            sm_clock_mhz=scaled(_integer(sensors / "freq1_input"), 1e-6),
            memory_clock_mhz=scaled(_integer(sensors / "freq2_input"), 1e-6),
            memory_used_bytes=_integer(self._devices[index] / "mem_info_vram_used"),
            temperature_c=self._temperature(sensors),
        )

    def energy_j(self, index: int) -> None:  # noqa: ARG002 - the same for every GPU
        """There is no such file."""
        return

    def close(self) -> None:
        """Nothing is held open."""

    def _temperature(self, sensors: Path) -> float | None:
        """Return the hottest sensor in degrees Celsius."""
        values = (_integer(each) for each in sensors.glob("temp*_input"))
        return scaled(max((each for each in values if each is not None), default=None), 1e-3)


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip() or None
    except (OSError, UnicodeDecodeError):  # absent, or the sensor sleeps
        return None


def _integer(file: Path) -> int | None:
    try:
        return int(_text(file) or "")
    except ValueError:
        return None
