"""Floors of a decode step against a table that was worked out by hand, and their properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.limits.shape import SHAPES, ModelShape, find_shape
from upcurve.limits.step import (
    DELTA_FLOPS,
    Chip,
    decode_bytes,
    decode_step,
    experts_touched,
    fits,
    flops,
    prompt_seconds,
)

BIG = SHAPES["Qwen3.5-397B-A17B"]
SMALL = SHAPES["Qwen3.5-35B-A3B"]
MI355X = Chip("MI355X", 288e9, 8e12, 2.516e15, 5.033e15, 8)
H200 = Chip("H200", 141e9, 4.8e12, 989e12, 1979e12, 8)

BATCHES = (1, 4, 16, 32, 64, 128, 256)
FLOORS = [
    (MI355X, 4, (0.59, 1.33, 3.93, 6.64, 10.30, 14.05, 17.55)),
    (MI355X, 8, (0.32, 0.70, 2.05, 3.47, 5.43, 7.58, 9.86)),
    (H200, 8, (0.53, 1.16, 3.41, 5.78, 9.05, 12.63, 16.43)),
]
"""ms: 397B FP8, fp8 KV, fp32 state, 8.7k mean context, bandwidth only, by hand."""


@pytest.mark.parametrize(("chip", "gpus", "floors"), FLOORS)
def test_a_decode_step_takes_the_floor_of_the_table(
    chip: Chip, gpus: int, floors: tuple[float, ...]
) -> None:
    for batch, expected in zip(BATCHES, floors, strict=True):
        step = decode_step(BIG, "fp8", chip, gpus, batch, context=8700)
        assert step.bound == "bandwidth"
        assert 1000 * step.seconds == pytest.approx(expected, rel=0.02)


def test_a_step_of_64_is_composed_as_by_hand() -> None:
    """GB on each of four GPUs: experts 69.5, state 6.1, KV 4.3; 82.4 with all dense weights."""
    assert experts_touched(BIG, 64) * BIG.expert_weights * BIG.layers / 4e9 == pytest.approx(
        69.5, rel=0.002
    )
    assert 2 * 64 * (BIG.state_bytes + BIG.convolution_bytes) / 4e9 == pytest.approx(6.1, rel=0.01)
    assert 64 * 8700 * BIG.kv_bytes("fp8") / 1e9 == pytest.approx(4.3, rel=0.01)
    assert decode_bytes(BIG, "fp8", 4, 64, 8700) / 1e9 == pytest.approx(82.4, rel=0.002)


@pytest.mark.parametrize(
    ("shape", "total", "state", "convolution"),
    [(BIG, 396.35e9, 188.7e6, 3.3e6), (SMALL, 34.66e9, 62.9e6, 1.5e6)],
)
def test_weights_and_states_are_those_of_the_family(
    shape: ModelShape, total: float, state: float, convolution: float
) -> None:
    assert shape.weight_bytes("bf16") / 2 == pytest.approx(total, rel=2e-4)
    assert shape.state_bytes == pytest.approx(state, rel=1e-3)
    assert shape.convolution_bytes == pytest.approx(convolution, rel=0.02)


def test_flops_of_a_token_are_twice_its_active_weights() -> None:
    """Active weights of 17.35 B and 3.45 B count the embedding, which multiplies nothing."""
    for shape, active in ((BIG, 17.35e9), (SMALL, 3.45e9)):
        linear, rest = flops(shape, tokens=1, context=0, sampled=1)
        rule = DELTA_FLOPS * shape.delta_value_heads * shape.delta_layers
        weights = (linear + rest - rule) / 2 + shape.head_weights
        assert weights == pytest.approx(active, rel=0.002)


def test_names_of_models_and_checkpoints_are_one_shape() -> None:
    assert find_shape("Qwen/Qwen3.5-35B-A3B-FP8") is SMALL
    assert find_shape("qwen3.5-397b-a17b") is BIG
    assert find_shape("Qwen3.5-35B-A3B-Instruct-Distilled") is None


@given(
    gpus=st.sampled_from([1, 2, 4, 8]),
    batch=st.integers(1, 1024),
    isl=st.integers(1, 65536),
    osl=st.integers(1, 8192),
)
def test_a_longer_batch_or_prompt_never_takes_less(
    gpus: int, batch: int, isl: int, osl: int
) -> None:
    step = decode_step(BIG, "fp8", MI355X, gpus, batch, isl=isl, osl=osl)
    more = decode_step(BIG, "fp8", MI355X, gpus, batch + 1, isl=isl, osl=osl)
    longer = decode_step(BIG, "fp8", MI355X, gpus, batch, isl=2 * isl, osl=osl)
    wider = decode_step(BIG, "bf16", MI355X, gpus, batch, isl=isl, osl=osl)
    assert step.seconds <= more.seconds
    assert step.seconds <= longer.seconds
    assert step.seconds <= wider.seconds
    # A batch of two takes less than two batches: weights are read once.
    assert more.seconds / (batch + 1) <= step.seconds / batch * (1 + 1e-9)
    assert 1 <= experts_touched(BIG, batch) <= BIG.experts + 1


def test_what_does_not_fit_is_known() -> None:
    assert not fits(BIG, "fp8", H200, 2, 1, 8704)
    assert fits(BIG, "fp8", H200, 4, 1, 8704)
    assert fits(SMALL, "fp8", H200, 1, 64, 8704)


def test_a_long_prompt_is_bound_by_compute_and_a_short_one_by_weights() -> None:
    linear, rest = flops(BIG, tokens=8192, context=4096, sampled=1)
    by_compute = (linear / MI355X.fp8_flops + rest / MI355X.bf16_flops) / 4
    assert prompt_seconds(BIG, "fp8", MI355X, 4, 8192) == pytest.approx(by_compute)
    assert prompt_seconds(BIG, "fp8", MI355X, 4, 64) > 10 * prompt_seconds(
        BIG, "fp8", MI355X, 4, 8192
    ) / (8192 / 64)
