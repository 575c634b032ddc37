"""What was seen of the GPUs, and what it says about a span of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow

from upcurve.load.telemetry.device import THROTTLING, GpuIdentity, GpuSample
from upcurve.load.telemetry.energy import Energy, span_energy

SCHEMA = pyarrow.schema(
    [
        ("time_ns", pyarrow.int64()),
        ("gpu", pyarrow.int32()),
        ("power_w", pyarrow.float64()),
        ("sm_clock_mhz", pyarrow.float64()),
        ("memory_clock_mhz", pyarrow.float64()),
        ("memory_used_bytes", pyarrow.int64()),
        ("temperature_c", pyarrow.float64()),
        ("throttle", pyarrow.list_(pyarrow.string())),
        ("energy_j", pyarrow.float64()),
    ]
)


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class GpuReading:
    """A sample, and the GPU's energy counter with it."""

    sample: GpuSample
    energy_j: float | None


@dataclass(frozen=True, slots=True)
class GpuTelemetry:
    """All readings of the GPUs that were watched, of each in order of time."""

    devices: Sequence[GpuIdentity]
    readings: Mapping[int, Sequence[GpuReading]]
    """By the index of the GPU."""

    def table(self) -> pyarrow.Table:
        """Return every reading: a row for each GPU and moment, with the columns of `SCHEMA`."""
        rows = [
            {"gpu": device.index, "energy_j": each.energy_j}
            | {name: getattr(each.sample, name) for name in GpuSample.__slots__}
            for device in self.devices
            for each in self.readings[device.index]
        ]
        return pyarrow.Table.from_pylist(rows, schema=SCHEMA)

    def summary(self, start_ns: int, end_ns: int, output_tokens: int | None) -> dict[str, Any]:
        """Return what the GPUs did in a span of time.

        Args:
            start_ns: Begin of the span, in ns of `time.perf_counter_ns`.
            end_ns: Its end.
            output_tokens: Tokens that were generated in the span, None where not known.

        Returns:
            gpus: for each index, name, uuid, samples, power_w, sm_clock_mhz and memory_clock_mhz
            (each {mean, max, min}), memory_used_bytes and temperature_c (the largest), throttled
            (a list of {reason, share} with the share of the samples), energy_j, energy_valid,
            energy_note; None where the GPU does not say.
            totals: energy_j of all, joules_per_output_token, energy_valid, note.
        """
        energies = {each.index: self._energy(each, start_ns, end_ns) for each in self.devices}
        gpus = [
            _gpu(device, self._within(device, start_ns, end_ns), energies[device.index])
            for device in self.devices
        ]
        return {"gpus": gpus, "totals": _totals(energies, output_tokens)}

    def _within(self, device: GpuIdentity, start_ns: int, end_ns: int) -> list[GpuSample]:
        samples = (each.sample for each in self.readings[device.index])
        return [each for each in samples if start_ns <= each.time_ns <= end_ns]

    def _energy(self, device: GpuIdentity, start_ns: int, end_ns: int) -> Energy:
        readings = self.readings[device.index]
        return span_energy(
            [each.sample.time_ns for each in readings],
            [each.sample.power_w for each in readings],
            [each.energy_j for each in readings],
            start_ns,
            end_ns,
        )


def _gpu(device: GpuIdentity, samples: list[GpuSample], energy: Energy) -> dict[str, Any]:
    return {
        "index": device.index,
        "name": device.name,
        "uuid": device.uuid,
        "samples": len(samples),
        "power_w": _spread(each.power_w for each in samples),
        "sm_clock_mhz": _spread(each.sm_clock_mhz for each in samples),
        "memory_clock_mhz": _spread(each.memory_clock_mhz for each in samples),
        "memory_used_bytes": max(_known(each.memory_used_bytes for each in samples), default=None),
        "temperature_c": max(_known(each.temperature_c for each in samples), default=None),
        "throttled": _throttled(samples),
        "energy_j": energy.joules,
        "energy_valid": energy.valid,
        "energy_note": energy.note,
    }


def _totals(energies: Mapping[int, Energy], output_tokens: int | None) -> dict[str, Any]:
    joules = _known(each.joules for each in energies.values())
    total = sum(joules) if joules and len(joules) == len(energies) else None
    broken = [f"GPU {index}: {each.note}" for index, each in energies.items() if not each.valid]
    return {
        "energy_j": total,
        "joules_per_output_token": total / output_tokens if total and output_tokens else None,
        "energy_valid": bool(energies) and not broken,
        "note": " | ".join(broken) or None,
    }


def _spread(values: Iterable[float | None]) -> dict[str, float] | None:
    known = _known(values)
    if not known:
        return None
    return {"mean": sum(known) / len(known), "max": max(known), "min": min(known)}


def _throttled(samples: list[GpuSample]) -> list[dict[str, Any]] | None:
    told = _known(each.throttle for each in samples)
    if not told:
        return None
    seen = Counter(reason for each in told for reason in THROTTLING.intersection(each))
    return [{"reason": reason, "share": seen[reason] / len(told)} for reason in sorted(seen)]


def _known(values: Iterable[_T | None]) -> list[_T]:
    return [each for each in values if each is not None]
