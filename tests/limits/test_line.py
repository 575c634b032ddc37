"""The speed-of-light line: above what was measured, falling, and cut where memory ends."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.limits.test_step import BIG, H200, MI355X, SMALL
from upcurve.errors import InputError
from upcurve.limits.line import at, every_point, layouts, line
from upcurve.limits.step import decode_step
from upcurve.records.published import measured_file
from upcurve.records.rows import read_rows


def test_no_published_point_lies_above_the_line() -> None:
    points = every_point(BIG, "fp8", MI355X, 8192, 1024)
    for group in read_rows("published:mi355x-qwen35", {}).groups:
        for each in group.points:
            limit = at(points, each.interactivity)
            assert limit is not None
            assert each.tput_per_gpu < limit
    own = every_point(SMALL, "fp8", H200, 8192, 1024, [1])
    assert measured_file("h200-qwen35-35b-vllm").is_file()
    for group in read_rows("published:h200-qwen35-35b-vllm", {}).groups:
        for each in group.points:
            assert each.tput_per_gpu < (at(own, each.interactivity) or 0)


@settings(deadline=None, max_examples=25)
@given(isl=st.integers(16, 32768), osl=st.integers(16, 4096))
def test_the_line_falls_and_each_point_follows_from_its_step(isl: int, osl: int) -> None:
    points = every_point(SMALL, "fp8", H200, isl, osl)
    knots = line(points)
    for slow, fast in pairwise(knots):
        assert slow.interactivity < fast.interactivity
        assert slow.tput_per_gpu > fast.tput_per_gpu
    for each in knots:
        step = decode_step(SMALL, "fp8", H200, each.gpus, each.batch, isl=isl, osl=osl)
        assert each.step_s == step.seconds
        # In osl steps every request of the batch goes through once: prompt and answer.
        tokens, seconds = each.batch * (isl + osl), osl * each.step_s
        assert each.tput_per_gpu == pytest.approx(tokens / seconds / each.gpus)
    assert at(points, knots[-1].interactivity * 1.01) is None
    for slow, fast in pairwise(line(points, latency=True)):
        assert (slow.e2e_ms, slow.tput_per_gpu) < (fast.e2e_ms, fast.tput_per_gpu)


def test_layouts_are_those_that_hold_the_weights() -> None:
    assert layouts(BIG, "fp8", MI355X) == [2, 4, 8]
    assert layouts(BIG, "bf16", MI355X) == [4, 8]
    assert layouts(SMALL, "fp8", H200) == [1, 2, 4, 8]


def test_what_fits_nowhere_and_what_is_no_workload_is_refused() -> None:
    with pytest.raises(InputError, match="does not fit"):
        every_point(BIG, "fp8", H200, 8192, 1024, [1])
    with pytest.raises(InputError, match="workload"):
        every_point(SMALL, "fp8", H200, 0, 1024)
