from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.errors import InputError
from upcurve.load.arrivals import ClosedLoop, OpenLoop

rates = st.floats(0.1, 500)


def seconds(load):
    return load.offsets_ns() / 1e9


@given(rates, st.integers(2, 200))
def test_constant_gaps_are_all_the_same(rate, requests):
    offsets = seconds(OpenLoop(rate, "constant", requests=requests))
    assert offsets[0] == 0
    assert numpy.diff(offsets) == pytest.approx([1 / rate] * (requests - 1), rel=1e-6, abs=2e-9)


@pytest.mark.parametrize(
    ("process", "burstiness", "variation"),
    [("poisson", 1.0, 1.0), ("gamma", 0.25, 2.0), ("gamma", 4.0, 0.5), ("gamma", 1.0, 1.0)],
)
def test_gaps_have_the_mean_and_the_variation_of_their_process(process, burstiness, variation):
    gaps = numpy.diff(seconds(OpenLoop(20, process, burstiness, requests=20_000, seed=3)))
    assert gaps.mean() == pytest.approx(1 / 20, rel=0.05)
    # The coefficient of variation of gamma gaps is 1 / sqrt(shape).
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.05)


def test_a_poisson_process_is_not_rescaled():
    """Arrivals in ten seconds at 5/s have mean and variance 50 over seeds."""
    counts = [len(seconds(OpenLoop(5, duration_s=10, seed=seed))) for seed in range(400)]
    assert numpy.mean(counts) == pytest.approx(50, rel=0.03)
    assert numpy.var(counts) == pytest.approx(50, rel=0.25)
    lasts = {float(seconds(OpenLoop(5, requests=50, seed=seed))[-1]) for seed in range(9)}
    assert len(lasts) == 9


@given(rates, st.sampled_from(["constant", "poisson"]), st.integers(0, 2**31), st.floats(0, 5))
def test_arrivals_ascend_and_are_the_same_again(rate, process, seed, ramp):
    load = OpenLoop(rate, process, requests=50, seed=seed, ramp_s=ramp)
    offsets = load.offsets_ns()
    assert (offsets >= 0).all()
    assert (numpy.diff(offsets) >= 0).all()
    assert (offsets == load.offsets_ns()).all()


@given(rates, st.floats(0.5, 5), st.integers(0, 99))
def test_a_duration_bounds_the_last_arrival(rate, duration, seed):
    assert (seconds(OpenLoop(rate, duration_s=duration, seed=seed)) < duration).all()


@given(rates, st.floats(0.5, 5), st.floats(0, 0.4), st.integers(0, 99))
def test_a_duration_and_a_number_bound_the_same_arrivals(rate, duration, ramp, seed):
    """However many are drawn at once: the drawing that a duration needs may start over."""
    bounded = OpenLoop(rate, duration_s=duration, ramp_s=ramp, seed=seed).offsets_ns()
    counted = OpenLoop(rate, requests=len(bounded) + 1, ramp_s=ramp, seed=seed).offsets_ns()
    assert (counted[:-1] == bounded).all()
    assert counted[-1] >= duration * 1e9 - 1


def test_a_ramp_has_half_of_the_arrivals_and_then_the_whole_rate():
    offsets = seconds(OpenLoop(100, "constant", duration_s=30, ramp_s=10))
    assert (offsets < 10).sum() == pytest.approx(500, abs=1)
    # Rising in a straight line: a quarter of them in the first half.
    assert (offsets < 5).sum() == pytest.approx(125, abs=1)
    assert numpy.diff(offsets[offsets > 10]) == pytest.approx(0.01, rel=1e-6)
    drawn = [seconds(OpenLoop(100, duration_s=20, ramp_s=10, seed=seed)) for seed in range(40)]
    assert numpy.mean([(each < 10).sum() for each in drawn]) == pytest.approx(500, rel=0.03)


def test_streams_start_apart():
    assert ClosedLoop(4, requests=4).stagger_ns == 2_000_000
    assert ClosedLoop(5, duration_s=9, ramp_s=2).stagger_ns == 500_000_000
    assert ClosedLoop(1, duration_s=9, ramp_s=2).stagger_ns == 2_000_000_000


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        (ClosedLoop, {"concurrency": 0, "requests": 1}, "concurrency"),
        (ClosedLoop, {"concurrency": 2}, "requests"),
        (ClosedLoop, {"concurrency": 65_536, "requests": 65_536}, "concurrency"),
        (ClosedLoop, {"concurrency": 2, "requests": 4, "duration_s": 1}, "requests"),
        (ClosedLoop, {"concurrency": 2, "requests": 1}, "requests"),
        (ClosedLoop, {"concurrency": 2, "duration_s": 0}, "duration"),
        (ClosedLoop, {"concurrency": 2, "duration_s": 2, "ramp_s": 2}, "ramp"),
        (ClosedLoop, {"concurrency": 2, "requests": 4, "ramp_s": -1}, "ramp"),
        (OpenLoop, {"rate": 0, "requests": 1}, "rate"),
        (OpenLoop, {"rate": float("nan"), "requests": 1}, "rate"),
        (OpenLoop, {"rate": 1}, "requests"),
        (OpenLoop, {"rate": 1, "requests": 1, "limit": 0}, "max-in-flight"),
        (OpenLoop, {"rate": 1, "requests": 1, "burstiness": 2}, "burstiness"),
        (OpenLoop, {"rate": 1, "requests": 1, "process": "gamma", "burstiness": 0}, "burstiness"),
        (OpenLoop, {"rate": 1, "requests": 1, "process": "bursty"}, "arrivals"),
        (OpenLoop, {"rate": 1, "duration_s": 3, "ramp_s": 3}, "ramp"),
        (OpenLoop, {"rate": 1, "requests": 1, "seed": -1}, "seed"),
    ],
)
def test_what_is_no_load_is_one_line(kind, values, field):
    with pytest.raises(InputError) as error:
        kind(**values)
    assert error.value.field == field
    assert "\n" not in str(error.value)
