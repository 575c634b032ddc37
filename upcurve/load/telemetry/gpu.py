"""A thread that samples the GPUs of this machine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from upcurve.load.telemetry.amd import AmdSmiBackend
from upcurve.load.telemetry.device import Backend, GpuIdentity, OpenBackend
from upcurve.load.telemetry.nvml import NvmlBackend
from upcurve.load.telemetry.samples import GpuReading, GpuTelemetry
from upcurve.load.telemetry.sysfs import SysfsBackend

INTERVAL_S = 0.1

_BACKENDS: tuple[OpenBackend, ...] = (NvmlBackend.open, AmdSmiBackend.open, SysfsBackend.open)
"""In the order in which they are tried."""

_log = logging.getLogger(__name__)


class GpuSampler:
    """Samples GPUs every `interval_s` seconds between `start` and `stop`."""

    def __init__(
        self, backend: Backend, devices: Sequence[GpuIdentity], interval_s: float = INTERVAL_S
    ) -> None:
        self._backend = backend
        self._devices = tuple(devices)
        self._interval_s = interval_s
        self._readings: dict[int, list[GpuReading]] = {each.index: [] for each in devices}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gpu-sampler", daemon=True)

    @classmethod
    def find(cls, indices: Sequence[int] | None) -> GpuSampler | None:
        """Return a sampler of these GPUs, not started yet; None where they cannot be asked.

        Args:
            indices: As the driver counts; None: all GPUs.
        """
        backend = next((found for each in _BACKENDS if (found := each()) is not None), None)
        if backend is None:
            return None
        devices = {each.index: each for each in backend.devices()}
        wanted = list(devices) if indices is None else list(dict.fromkeys(indices))
        missing = [index for index in wanted if index not in devices]
        if missing or not wanted:
            _log.warning("no GPU telemetry: of GPUs %s, %s are not here", wanted, missing)
            backend.close()
            return None
        return cls(backend, [devices[index] for index in wanted])

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> GpuTelemetry:
        """Sample a last time, so that a span which ends now is covered, and return all."""
        self._stopping.set()
        self._thread.join()
        self._backend.close()
        readings = {index: tuple(each) for index, each in self._readings.items()}
        return GpuTelemetry(self._devices, readings)

    def _watch(self) -> None:
        due = time.perf_counter()
        while True:
            last = self._stopping.is_set()
            for index, readings in self._readings.items():
                sample = self._backend.sample(index)
                readings.append(GpuReading(sample, self._backend.energy_j(index)))
            if last:
                return
            due = max(due + self._interval_s, time.perf_counter())
            self._stopping.wait(due - time.perf_counter())
