"""The decode kernel of a Gated DeltaNet layer against float64, from projection to gated norm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.engine.kernels import gated_delta_decode
from upcurve.engine.kernels.causal_conv import convolve_step
from upcurve.engine.kernels.gated_delta import gates, step, unit
from upcurve.engine.kernels.gated_delta_decode import decode_in_place
from upcurve.engine.kernels.quantized import GatedRows

SLOTS = 6
EPS = 1e-6


def reference(values: dict[str, Any], *, normed: bool) -> tuple[torch.Tensor, ...]:
    """Return outputs, new states and new rings, in float64."""
    states, slots, lengths = values["states"], values["slots"], values["lengths"]
    _, heads, key_dim, value_dim = states.shape
    key_heads = values["key_heads"]
    keys, share = key_heads * key_dim, heads // key_heads
    rings = values["rings"].double()
    rows = values["qkv"].double()
    rows = convolve_step(rows, rings, slots, lengths, values["convolution"].double())
    q, k, v = rows.split([keys, keys, heads * value_dim], -1)
    q, k = (unit64(x.reshape(-1, key_heads, key_dim)).repeat_interleave(share, 1) for x in (q, k))
    a, b = values["a"].double(), values["b"].double()
    g = -values["a_log"].double().exp() * F.softplus(a + values["dt_bias"].double())
    v = v.reshape(-1, heads, value_dim)
    chosen = states[slots].double()
    chosen[lengths == 1] = 0
    out = step(q * key_dim**-0.5, k, v, g, torch.sigmoid(b), chosen)
    after = states.double()
    after[slots] = chosen
    if normed:
        out = out * torch.rsqrt(out.pow(2).mean(-1, keepdim=True) + EPS) * values["norm"].double()
        out = out * F.silu(values["z"].double()).view_as(out)
    return out.flatten(1), after, rings


def unit64(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)


def draw(
    *,
    batch: int,
    key_heads: int = 2,
    share: int = 2,
    key_dim: int = 8,
    value_dim: int = 8,
    kernel: int = 4,
    seed: int = 0,
) -> dict[str, Any]:
    """Draw what the kernel takes; what a sequence has not written is not a number."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    heads = key_heads * share
    channels, width = 2 * key_heads * key_dim + heads * value_dim, heads * value_dim
    # Columns of wider rows, as a joint projection has them.
    qkv, z, a, b, _ = normal(batch, channels + width + 2 * heads + 3).split(
        [channels, width, heads, heads, 3], -1
    )
    slots = torch.randperm(SLOTS, generator=generator)[:batch]
    lengths = torch.randint(1, 9, (batch,), generator=generator, dtype=torch.int32)
    states, rings = normal(SLOTS, heads, key_dim, value_dim), normal(SLOTS, kernel, channels)
    for slot, length in zip(slots.tolist(), lengths.tolist(), strict=True):
        rings[slot, length - 1 :] = torch.nan
        if length == 1:
            states[slot] = torch.nan
    return {
        "qkv": qkv,
        "z": z,
        "a": a * 10,
        "b": b * 3,
        "convolution": normal(kernel, channels),
        "a_log": normal(heads),
        "dt_bias": normal(heads) * 10,
        "norm": normal(value_dim),
        "rings": rings,
        "states": states,
        "slots": slots,
        "lengths": lengths,
        "key_heads": key_heads,
        "eps": EPS,
    }


def poisoned(*size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.full(size, torch.nan, dtype=dtype, device=device)


def check(values: dict[str, Any], *, normed: bool = True) -> None:
    want, states, rings = reference(values, normed=normed)
    given_values = values if normed else {**values, "norm": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gated_delta_decode.torch, "empty", poisoned)
        got, quantized = decode_in_place(**given_values)
    assert quantized is None
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-4)
    alike = {"atol": 1e-4, "rtol": 1e-4, "equal_nan": True}
    torch.testing.assert_close(values["states"].double(), states, **alike)
    assert torch.equal(values["rings"].nan_to_num(7), rings.float().nan_to_num(7))


@settings(max_examples=15)
@given(
    batch=st.integers(1, 4),
    key_heads=st.integers(1, 2),
    share=st.integers(1, 4),
    key_dim=st.sampled_from([8, 12, 16]),
    value_dim=st.sampled_from([4, 8, 12, 20]),
    kernel=st.integers(1, 5),
    seed=st.integers(0, 99),
    normed=st.booleans(),
)
def test_a_step_is_the_references_and_other_slots_stay(normed: bool, **sizes: int) -> None:
    check(draw(**sizes), normed=normed)


def test_the_references_gates_are_the_same() -> None:
    values = draw(batch=4)
    g, beta = gates(values["a"], values["b"], values["a_log"], values["dt_bias"])
    x = values["a"].double() + values["dt_bias"].double()
    exact = -values["a_log"].double().exp() * F.softplus(x)
    torch.testing.assert_close(g.double(), exact, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(beta.double(), torch.sigmoid(values["b"].double()))
    assert unit(values["a"]).norm(dim=-1).max() <= 1


def test_rows_that_share_the_padding_slot_harm_nobody() -> None:
    values = draw(batch=4, seed=3)
    want, states, _ = reference(values, normed=True)
    padding = next(slot for slot in range(SLOTS) if slot not in values["slots"].tolist())
    padded = dict(values)
    for name in ("qkv", "z", "a", "b"):
        padded[name] = torch.cat([values[name], values[name]])
    padded["slots"] = torch.cat([values["slots"], torch.full((4,), padding)])
    padded["lengths"] = torch.cat([values["lengths"], torch.ones(4, dtype=torch.int32)])
    got, _ = decode_in_place(**padded)
    torch.testing.assert_close(got[:4].double(), want, atol=1e-4, rtol=1e-4)
    slots = values["slots"]
    torch.testing.assert_close(
        values["states"][slots].double(), states[slots], atol=1e-4, rtol=1e-4
    )
    assert torch.isfinite(values["states"][padding]).all()


@pytest.mark.parametrize("bias", [60.0, -60.0])
def test_decay_at_its_ends_is_finite(bias: float) -> None:
    values = draw(batch=2, seed=2)
    values["dt_bias"].fill_(bias)
    check(values)


def test_a_bfloat16_state_is_rounded_once() -> None:
    values = draw(batch=2, key_dim=16, value_dim=16, seed=4)
    values["states"] = values["states"].to(torch.bfloat16)
    want, states, _ = reference(values, normed=True)
    got, _ = decode_in_place(**values)
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-4)
    # The interpreter cuts to bfloat16 where the device rounds: one step of eight bits.
    slots = values["slots"]
    torch.testing.assert_close(
        values["states"][slots].double(), states[slots], atol=1e-3, rtol=2**-7
    )


def test_rows_come_in_fp8_too() -> None:
    values = draw(batch=3, key_heads=1, value_dim=128, seed=5)
    values["z"][1, :128] = 0
    got, quantized = decode_in_place(**values, quantize=True)
    assert quantized is not None
    assert quantized.scale.shape == (3, 2)
    assert quantized.scale[1, 0] == 1
    scale = quantized.scale.repeat_interleave(128, 1)
    # The interpreter loses the carry where a value is rounded up to a power of two: a few in 100.
    error = (quantized.values.float() * scale - got).abs()
    assert (error > got.abs() / 16 + scale * 2**-10).float().mean() < 0.05
    largest = got.view(3, 2, 128).abs().amax(-1)
    torch.testing.assert_close(quantized.scale * 448, largest.where(largest > 0, 448.0))


def test_rows_are_written_where_they_are_wanted() -> None:
    values = draw(batch=3, key_heads=1, value_dim=128, seed=5)
    again = {name: x.clone() if isinstance(x, torch.Tensor) else x for name, x in values.items()}
    want, in_fp8 = decode_in_place(**again, quantize=True)
    whole = GatedRows.empty(8, want.shape[1], want.dtype, want.device, quantize=True)
    got, quantized = decode_in_place(**values, into=whole.part(2, 5))
    assert in_fp8 is not None
    assert quantized is not None
    assert whole.quantized is not None
    assert torch.equal(whole.rows[2:5], want)
    assert torch.equal(got, want)
    assert torch.equal(whole.quantized.scale[2:5], in_fp8.scale)
    assert torch.equal(quantized.values.view(torch.uint8), in_fp8.values.view(torch.uint8))
