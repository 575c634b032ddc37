"""What a GPU tells of itself, and what every way to ask it looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

THROTTLING = frozenset(
    {
        "sw_power_cap",
        "hw_slowdown",
        "sw_thermal_slowdown",
        "hw_thermal_slowdown",
        "hw_power_brake_slowdown",
        "package_power",
        "socket_thermal",
        "vr_thermal",
        "hbm_thermal",
        "processor_hot",
    }
)
"""Reasons for which a GPU under load runs slower than it could; being idle is none."""


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """Which GPU it is; None where it does not say."""

    index: int
    """As its driver counts."""
    name: str
    uuid: str | None
    memory_total_bytes: int | None
    power_limit_w: float | None
    driver: str | None


@dataclass(frozen=True, slots=True)
class GpuSample:
    """A GPU at one moment; None where it does not say."""

    time_ns: int
    """Of `time.perf_counter_ns`."""
    power_w: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    memory_used_bytes: int | None = None
    temperature_c: float | None = None
    throttle: tuple[str, ...] | None = None
    """All reasons for the present clock that the driver names, those of `THROTTLING` and others."""


class Backend(Protocol):
    """A way to ask the GPUs of this machine. What cannot be had is None; nothing raises."""

    def devices(self) -> list[GpuIdentity]:
        """Return all GPUs."""

    def sample(self, index: int) -> GpuSample:
        """Return the present state of one GPU."""

    def energy_j(self, index: int) -> float | None:
        """Return what the GPU's own counter says it has used since some fixed moment, in J."""

    def close(self) -> None:
        """Let go of the driver."""


def scaled(value: float | None, factor: float) -> float | None:
    """Return the value in another unit."""
    return None if value is None else value * factor


OpenBackend = Callable[[], Backend | None]
"""Opens a backend; None where the library, the driver, the permission or a GPU is missing."""
