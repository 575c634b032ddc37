from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest

from upcurve.load.telemetry import gpu
from upcurve.load.telemetry.device import GpuIdentity, GpuSample
from upcurve.load.telemetry.gpu import GpuSampler

SECOND = 10**9
GIB = 2**30


def identity(index: int) -> GpuIdentity:
    return GpuIdentity(index, "H200", f"GPU-{index}", 141 * GIB, 700.0, "570.1")


@dataclass
class KnownGpus:
    """Two GPUs of known power; time passes by itself."""

    watts: tuple[float, ...] = (300.0, 500.0)
    closed: bool = False
    ticks: int = 0
    enough: threading.Event = field(default_factory=threading.Event)
    now_ns: int = 0

    def devices(self) -> list[GpuIdentity]:
        return [identity(index) for index in range(len(self.watts))]

    def sample(self, index: int) -> GpuSample:
        self.ticks += 1
        if self.ticks >= 10:
            self.enough.set()
        self.now_ns = time.perf_counter_ns()
        return GpuSample(self.now_ns, self.watts[index], 1980.0, 3201.0, 100 * GIB)

    def energy_j(self, index: int) -> float | None:
        return self.watts[index] * self.now_ns / SECOND

    def close(self) -> None:
        self.closed = True


def test_the_thread_samples_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = KnownGpus()
    monkeypatch.setattr(gpu, "_BACKENDS", (lambda: None, lambda: backend))
    sampler = GpuSampler.find([1])
    assert sampler is not None
    start = time.perf_counter_ns()
    sampler.start()
    assert backend.enough.wait(30)
    telemetry = sampler.stop()
    assert backend.closed
    assert [each.index for each in telemetry.devices] == [1]
    readings = telemetry.readings[1]
    assert len(readings) == backend.ticks
    assert readings[-1].sample.time_ns >= readings[0].sample.time_ns >= start
    summary = telemetry.summary(readings[0].sample.time_ns, readings[-1].sample.time_ns, None)
    assert summary["gpus"][0]["power_w"] == {"mean": 500.0, "max": 500.0, "min": 500.0}
    seconds = (readings[-1].sample.time_ns - readings[0].sample.time_ns) / SECOND
    assert summary["totals"]["energy_j"] == pytest.approx(500 * seconds)


def test_all_gpus_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_BACKENDS", (KnownGpus,))
    sampler = GpuSampler.find(None)
    assert sampler is not None
    sampler.start()
    assert set(sampler.stop().readings) == {0, 1}


@pytest.mark.parametrize("indices", [[2], [0, 7], []])
def test_gpus_that_are_not_there(indices: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = KnownGpus()
    monkeypatch.setattr(gpu, "_BACKENDS", (lambda: backend,))
    assert GpuSampler.find(indices) is None
    assert backend.closed
