from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.load.telemetry.energy import Energy, span_energy

TENTH = 10**8
SECOND = 10**9


def ticks(seconds: float, step_ns: int = TENTH) -> list[int]:
    return list(range(0, round(seconds * SECOND) + 1, step_ns))


def by_power(times: list[int], power: list[float | None], start: int, end: int) -> Energy:
    return span_energy(times, power, [None] * len(times), start, end)


@given(
    power=st.floats(0, 2000),
    start=st.integers(0, 10 * SECOND),
    length=st.integers(2 * SECOND, 20 * SECOND),
)
def test_constant_power_times_time(power: float, start: int, length: int) -> None:
    times = ticks(30)
    energy = by_power(times, [power] * len(times), start, start + length)
    assert energy.valid, energy.note
    assert energy.joules == pytest.approx(power * length / SECOND)


@given(slope=st.floats(-20, 20), start=st.floats(0, 10), length=st.floats(2, 20))
def test_a_ramp_is_exact_between_samples(slope: float, start: float, length: float) -> None:
    times = ticks(30)
    power = [1000 + slope * time / SECOND for time in times]
    end = start + length
    energy = by_power(times, list(power), round(start * SECOND), round(end * SECOND))
    assert energy.valid
    assert energy.joules == pytest.approx(1000 * length + slope * (end**2 - start**2) / 2)


@given(cut=st.integers(2 * SECOND, 8 * SECOND))
def test_two_spans_add_up(cut: int) -> None:
    times = ticks(10)
    power: list[float | None] = [300 + 100 * (index % 7) for index in range(len(times))]
    parts = [by_power(times, power, 0, cut), by_power(times, power, cut, 10 * SECOND)]
    whole = by_power(times, power, 0, 10 * SECOND)
    assert sum(each.joules or 0 for each in parts) == pytest.approx(whole.joules)


@given(
    gap_start=st.integers(0, 80),
    missing=st.integers(1, 40),
)
def test_a_gap_is_not_valid(gap_start: int, missing: int) -> None:
    times = ticks(20)
    power: list[float | None] = [100.0] * len(times)
    power[gap_start + 1 : gap_start + 1 + missing] = [None] * missing
    energy = by_power(times, power, 0, 20 * SECOND)
    assert energy.valid == (missing < 10)
    assert energy.joules == pytest.approx(2000)
    assert energy.valid or "no sample for" in energy.note


def test_a_gap_outside_the_span_does_not_matter() -> None:
    times = [0, *(5 * SECOND + each for each in ticks(5)), 60 * SECOND]
    assert by_power(times, [100.0] * len(times), 6 * SECOND, 9 * SECOND).valid
    assert not by_power(times, [100.0] * len(times), 4 * SECOND, 9 * SECOND).valid


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 11), (-1, 11)])
def test_what_is_not_covered_is_not_valid(start: int, end: int) -> None:
    times = ticks(10)
    energy = by_power(times, [100.0] * len(times), start * SECOND, end * SECOND)
    assert not energy.valid
    assert "do not cover" in energy.note
    assert energy.joules == pytest.approx(100 * (min(end, 10) - max(start, 0)))


def test_a_short_span_is_not_valid() -> None:
    times = ticks(10)
    assert not by_power(times, [100.0] * len(times), 0, 2 * SECOND - 1).valid
    assert by_power(times, [100.0] * len(times), 0, 2 * SECOND).valid


@pytest.mark.parametrize("times", [[], [0], [0, SECOND]])
def test_nothing_seen(times: list[int]) -> None:
    energy = by_power(times, [100.0] * len(times), 20 * SECOND, 30 * SECOND)
    assert energy.joules is None
    assert not energy.valid


@given(error=st.floats(-0.2, 0.2))
def test_the_counter_is_held_against_power(error: float) -> None:
    times = ticks(10)
    counter: list[float | None] = [5000 + 200 * time / SECOND for time in times]
    power: list[float | None] = [200 * (1 + error)] * len(times)
    energy = span_energy(times, power, counter, SECOND, 9 * SECOND)
    assert energy.joules == pytest.approx(1600), "the counter's"
    if abs(abs(error) - 0.05) > 1e-6:
        assert energy.valid == (abs(error) < 0.05)
    assert energy.valid or "differ by more than 5%" in energy.note


def test_a_counter_that_stands_still_is_not_believed() -> None:
    times = ticks(10)
    energy = span_energy(times, [200.0] * len(times), [7.0] * len(times), 0, 10 * SECOND)
    assert not energy.valid


def test_a_counter_that_falls_is_not_believed() -> None:
    times = ticks(10)
    counter: list[float | None] = [200 * (time / SECOND % 5) for time in times]
    energy = span_energy(times, [200.0] * len(times), counter, 0, 10 * SECOND)
    assert not energy.valid
    assert energy.joules == pytest.approx(2000), "by power"
    assert "fell" in energy.note


def test_a_counter_without_power_says_that_it_is_unchecked() -> None:
    times = ticks(10)
    counter: list[float | None] = [200 * time / SECOND for time in times]
    energy = span_energy(times, [None] * len(times), counter, 0, 10 * SECOND)
    assert energy == Energy(
        pytest.approx(2000), True, "the GPU's energy counter, not checked against power"
    )
