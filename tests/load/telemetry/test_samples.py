from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.load.telemetry.device import THROTTLING, GpuIdentity, GpuSample
from upcurve.load.telemetry.samples import SCHEMA, GpuReading, GpuTelemetry

SECOND = 10**9
GIB = 2**30


def identity(index: int) -> GpuIdentity:
    return GpuIdentity(index, "H200", f"GPU-{index}", 141 * GIB, 700.0, "570.1")


def constant(watts: dict[int, float], seconds: int) -> GpuTelemetry:
    readings = {
        index: [
            GpuReading(GpuSample(tick * SECOND // 10, power), power * tick / 10)
            for tick in range(seconds * 10 + 1)
        ]
        for index, power in watts.items()
    }
    return GpuTelemetry([identity(index) for index in watts], readings)


@given(
    watts=st.lists(st.floats(1, 1500), min_size=1, max_size=8),
    seconds=st.integers(2, 20),
    tokens=st.integers(1, 10**6),
)
def test_energy_of_all(watts: list[float], seconds: int, tokens: int) -> None:
    telemetry = constant(dict(enumerate(watts)), seconds)
    summary = telemetry.summary(0, seconds * SECOND, tokens)
    totals = summary["totals"]
    assert totals["energy_valid"]
    assert totals["note"] is None
    assert totals["energy_j"] == pytest.approx(sum(watts) * seconds)
    assert totals["joules_per_output_token"] == pytest.approx(sum(watts) * seconds / tokens)
    assert [each["energy_j"] for each in summary["gpus"]] == pytest.approx(
        [power * seconds for power in watts]
    )


@pytest.mark.parametrize("tokens", [None, 0])
def test_no_tokens_no_joules_per_token(tokens: int | None) -> None:
    assert (
        constant({0: 100.0}, 5).summary(0, 5 * SECOND, tokens)["totals"]["joules_per_output_token"]
        is None
    )


def test_one_gpu_that_is_not_valid_spoils_the_total() -> None:
    whole, short = constant({0: 100.0}, 10), constant({3: 100.0}, 5)
    telemetry = GpuTelemetry([*whole.devices, *short.devices], {**whole.readings, **short.readings})
    totals = telemetry.summary(0, 10 * SECOND, 10)["totals"]
    assert not totals["energy_valid"]
    assert totals["note"].startswith("GPU 3: ")
    assert "do not cover" in totals["note"]


def test_a_gpu_of_unknown_energy_leaves_no_total() -> None:
    known = constant({0: 100.0}, 5)
    silent = [GpuReading(GpuSample(tick * SECOND), None) for tick in range(6)]
    telemetry = GpuTelemetry([*known.devices, identity(1)], {**known.readings, 1: silent})
    totals = telemetry.summary(0, 5 * SECOND, 10)["totals"]
    assert totals["energy_j"] is totals["joules_per_output_token"] is None
    assert not totals["energy_valid"]


def test_extremes_and_throttling_within_the_span() -> None:
    reasons = [
        ("gpu_idle",),
        ("sw_power_cap",),
        ("sw_power_cap", "hw_thermal_slowdown"),
        (),
        None,
        ("hw_power_brake_slowdown",),
    ]
    samples = [
        GpuSample(tick * SECOND, 100.0 + tick, 1000.0 - tick, None, tick * GIB, 40.0 + tick, each)
        for tick, each in enumerate(reasons)
    ]
    telemetry = GpuTelemetry([identity(0)], {0: [GpuReading(each, None) for each in samples]})
    found = telemetry.summary(0, 4 * SECOND, None)["gpus"][0]
    assert found["samples"] == 5
    assert found["power_w"] == {"mean": 102.0, "max": 104.0, "min": 100.0}
    assert found["sm_clock_mhz"] == {"mean": 998.0, "max": 1000.0, "min": 996.0}
    assert found["memory_clock_mhz"] is None
    assert found["memory_used_bytes"] == 4 * GIB
    assert found["temperature_c"] == 44.0
    assert found["throttled"] == [
        {"reason": "hw_thermal_slowdown", "share": 0.25},
        {"reason": "sw_power_cap", "share": 0.5},
    ]


def test_a_gpu_that_says_nothing() -> None:
    samples = [GpuReading(GpuSample(tick * SECOND), None) for tick in range(5)]
    summary = GpuTelemetry([identity(0)], {0: samples}).summary(0, 4 * SECOND, 100)
    found = summary["gpus"][0]
    assert found["power_w"] is found["throttled"] is found["memory_used_bytes"] is None
    assert summary["totals"]["energy_j"] is None
    assert not summary["totals"]["energy_valid"]


def test_the_table_has_every_reading() -> None:
    telemetry = constant({0: 100.0, 1: 200.0}, 2)
    table = telemetry.table()
    assert table.schema == SCHEMA
    assert table.num_rows == 2 * 21
    assert table.column("power_w").to_pylist() == [100.0] * 21 + [200.0] * 21
    assert table.column("gpu").to_pylist() == [0] * 21 + [1] * 21
    throttled = GpuSample(7, throttle=("sw_power_cap", "gpu_idle"))
    row = GpuTelemetry([identity(0)], {0: [GpuReading(throttled, 1.5)]}).table().to_pylist()[0]
    assert row["throttle"] == ["sw_power_cap", "gpu_idle"]
    assert row["energy_j"] == 1.5
    assert row["power_w"] is None


def test_idle_is_no_throttling() -> None:
    assert "gpu_idle" not in THROTTLING
