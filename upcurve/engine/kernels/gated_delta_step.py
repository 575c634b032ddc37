"""One token of the gated delta rule for each of some sequences: one launch, states in place."""

from __future__ import annotations

import torch

from upcurve.engine.platform import tl, triton

FEW_ROWS = 8
"""Up to so many sequences the value dimension is cut finer: they would not fill the device."""


def step_in_place(
    qkv: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    a_log: torch.Tensor,
    dt_bias: torch.Tensor,
    states: torch.Tensor,
    slots: torch.Tensor,
    *,
    key_heads: int,
) -> torch.Tensor:
    """Split, normalise, gate, decay, correct and read (`gated_delta`), in float32.

    The state is read once and written once. What is launched follows from the shapes alone. Rows
    may share a slot only if nobody reads it.

    Args:
        qkv: [B, 2 key_heads * Dk + value_heads * Dv] after convolution and SiLU: q, k, v; the last
            dimension contiguous.
        a: [B, value_heads], the last dimension contiguous.
        b: likewise.
        a_log: float32 [value_heads].
        dt_bias: float32 [value_heads].
        states: contiguous [slots_total, value_heads, Dk, Dv], float32 or bfloat16.
        slots: int64 [B].
        key_heads: value head j goes with key head j // (value_heads // key_heads).

    Returns:
        float32 [B, value_heads, Dv].
    """
    batch = len(qkv)
    _, value_heads, key_dim, value_dim = states.shape
    assert qkv.shape[1] == 2 * key_heads * key_dim + value_heads * value_dim
    assert qkv.stride(1) == a.stride(1) == b.stride(1) == 1
    assert states.is_contiguous()
    out = torch.empty(batch, value_heads, value_dim, dtype=torch.float32, device=qkv.device)
    width = min(_power_of_two(value_dim), 8 if batch <= FEW_ROWS else 32)
    _step[(batch * value_heads, -(-value_dim // width))](
        *(qkv, a, b, a_log, dt_bias, states, slots, out),
        *(qkv.stride(0), a.stride(0), b.stride(0), key_dim**-0.5),
        key_heads=key_heads,
        value_heads=value_heads,
        key_dim=key_dim,
        value_dim=value_dim,
        keys=_power_of_two(key_dim),
        width=width,
        num_warps=4,
    )
    return out


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()


@triton.jit  # type: ignore[untyped-decorator]
def softplus(x: tl.tensor) -> tl.tensor:
    """Return log(1 + exp(x)) in float32, small values to their last digits."""
    # exp(x) would overflow where the logarithm of 1 + exp(x) is x anyway.
    grown = tl.exp(tl.minimum(x, 20.0))
    # 1 + exp(x) rounds off what a memory of many thousand tokens decays by: a series does not.
    small = grown * (1.0 - grown * (0.5 - grown * (1.0 / 3.0)))
    return tl.where(x > 20.0, x, tl.where(grown < 0.01, small, tl.log(1.0 + grown)))


@triton.jit  # type: ignore[untyped-decorator]
def _step(
    qkv: tl.tensor,
    a: tl.tensor,
    b: tl.tensor,
    a_log: tl.tensor,
    dt_bias: tl.tensor,
    states: tl.tensor,
    slots: tl.tensor,
    out: tl.tensor,
    qkv_stride: tl.tensor,
    a_stride: tl.tensor,
    b_stride: tl.tensor,
    scale: tl.tensor,
    key_heads: tl.constexpr,
    value_heads: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    keys: tl.constexpr,
    width: tl.constexpr,
) -> None:
    row = (tl.program_id(0) // value_heads).to(tl.int64)
    head = tl.program_id(0) % value_heads
    key = tl.arange(0, keys)
    value = tl.program_id(1) * width + tl.arange(0, width)
    is_key, is_value = key < key_dim, value < value_dim

    start = qkv + row * qkv_stride
    at = start + (head // (value_heads // key_heads)) * key_dim + key
    q = tl.load(at, mask=is_key, other=0.0).to(tl.float32)
    k = tl.load(at + key_heads * key_dim, mask=is_key, other=0.0).to(tl.float32)
    at = start + 2 * key_heads * key_dim + head * value_dim + value
    v = tl.load(at, mask=is_value, other=0.0).to(tl.float32)
    q = q * tl.rsqrt(tl.sum(q * q, 0) + 1e-6) * scale
    k = k * tl.rsqrt(tl.sum(k * k, 0) + 1e-6)

    x = tl.load(a + row * a_stride + head).to(tl.float32) + tl.load(dt_bias + head)
    decay = tl.exp(-tl.exp(tl.load(a_log + head)) * softplus(x))
    beta = tl.sigmoid(tl.load(b + row * b_stride + head).to(tl.float32))

    place = (tl.load(slots + row) * value_heads + head) * key_dim
    tile = states + (place + key[:, None]) * value_dim + value[None, :]
    inside = is_key[:, None] & is_value[None, :]
    state = tl.load(tile, mask=inside, other=0.0).to(tl.float32) * decay
    correction = (v - tl.sum(state * k[:, None], 0)) * beta
    state += k[:, None] * correction[None, :]
    tl.store(tile, state.to(states.dtype.element_ty), mask=inside)
    read = tl.sum(state * q[:, None], 0)
    tl.store(out + (row * value_heads + head) * value_dim + value, read, mask=is_value)
