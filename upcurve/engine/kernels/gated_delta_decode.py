"""One token of Gated DeltaNet for each of some sequences, from projections to the gated norm.

One launch: split, convolution, gates, the delta rule on the state in place, norm and output gate. A
program has one head of one sequence; its state is read once and written once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from upcurve.engine import tuning
from upcurve.engine.kernels.gated_delta_token import keep, softplus, summed, weighted
from upcurve.engine.kernels.quantized import GatedRows, QuantizedRows
from upcurve.engine.platform import compute_capability, overlapping, tl, triton, wait_for_inputs


@dataclass(frozen=True, slots=True)
class DecodeLaunch:
    """How a program goes through the state of its head."""

    columns: int
    """Of the state at a time: few leave registers for several programs on a multiprocessor."""
    warps: int = 4
    registers: int = 255
    """Of a thread at most, on NVIDIA GPUs."""

    @classmethod
    def of(cls, batch: int, value_dim: int, dtype: torch.dtype) -> DecodeLaunch:
        """Choose for so many sequences, columns of a state and its dtype."""
        whole = triton.next_power_of_2(value_dim)
        if dtype == torch.float32 or batch > 1:
            return cls(columns=min(64, whole))
        # A state alone is spread over more warps.
        return cls(columns=whole, warps=8)


def decode_in_place(
    qkv: torch.Tensor,
    z: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    convolution: torch.Tensor,
    a_log: torch.Tensor,
    dt_bias: torch.Tensor,
    norm: torch.Tensor | None,
    rings: torch.Tensor,
    states: torch.Tensor,
    slots: torch.Tensor,
    lengths: torch.Tensor,
    key_heads: int,
    eps: float,
    quantize: bool = False,
    into: GatedRows | None = None,
    launch: DecodeLaunch | None = None,
) -> tuple[torch.Tensor, QuantizedRows | None]:
    """Compute `causal_conv`, `gated_delta.step` and the gated norm, in float32.

    What is launched follows from the shapes alone. Rows may share a slot only if nobody reads it.
    At position 0 the state counts as zeros, whatever the slot holds.

    Args:
        qkv: [B, 2 key_heads * Dk + value_heads * Dv] as projected; rows contiguous, as
            those of z, a and b.
        z: [B, value_heads * Dv].
        a: [B, value_heads].
        b: [B, value_heads].
        convolution: [kernel, 2 key_heads * Dk + value_heads * Dv], contiguous, oldest first.
        a_log: float32 [value_heads].
        dt_bias: float32 [value_heads].
        norm: float32 [Dv]; None: neither norm nor gate.
        rings: [slots_total, kernel, 2 key_heads * Dk + value_heads * Dv], contiguous.
        states: contiguous [slots_total, value_heads, Dk, Dv], float32 or bfloat16.
        slots: int64 [B].
        lengths: int32 [B]: tokens of each sequence with this one.
        key_heads: value head j goes with key head j // (value_heads // key_heads).
        eps: of the norm.
        quantize: give the rows in FP8 too, where a head is 128 channels.
        into: where to write both; new where None.
        launch: chosen from the shapes where None.

    Returns:
        [B, value_heads * Dv] in the dtype of qkv, float32 without norm; and in FP8.
    """
    batch = len(qkv)
    _, value_heads, key_dim, value_dim = states.shape
    channels = 2 * key_heads * key_dim + value_heads * value_dim
    assert qkv.shape[1] == channels
    assert qkv.stride(1) == z.stride(1) == a.stride(1) == b.stride(1) == 1
    assert states.is_contiguous()
    assert rings.is_contiguous()
    assert convolution.is_contiguous()
    width = value_heads * value_dim
    dtype = torch.float32 if norm is None else qkv.dtype
    quantize = quantize and norm is not None and value_dim == 128
    into = into or GatedRows.empty(batch, width, dtype, qkv.device, quantize=quantize)
    rows, quantized = into.rows, into.quantized
    assert rows.shape == (batch, width)
    assert rows.is_contiguous()
    launch = launch or tuning.choose(
        DecodeLaunch.of(batch, value_dim, states.dtype),
        "gated_delta_decode",
        qkv.device,
        rows=batch,
        heads=value_heads,
        dtype=states.dtype,
    )
    nvidia = compute_capability(qkv.device) >= (1, 0)
    _decode[(value_heads, batch)](
        *(qkv, z, a, b, convolution, a_log, dt_bias, norm, rings, states, slots, lengths, rows),
        *((None, None) if quantized is None else (quantized.values, quantized.scale)),
        *(qkv.stride(0), z.stride(0), a.stride(0), b.stride(0)),
        *(0 if quantized is None else quantized.scale.stride(1), key_dim**-0.5, eps),
        key_heads=key_heads,
        value_heads=value_heads,
        key_dim=key_dim,
        value_dim=value_dim,
        keys=triton.next_power_of_2(key_dim),
        columns=launch.columns,
        kernel=len(convolution),
        taps=triton.next_power_of_2(len(convolution)),
        channels=channels,
        num_warps=launch.warps,
        **({"maxnreg": launch.registers} if nvidia else {}),
        **overlapping(qkv.device),
    )
    return rows, quantized


@triton.jit  # type: ignore[untyped-decorator]
def _part(
    states: tl.tensor,
    place: tl.tensor,
    key: tl.tensor,
    seen: tl.tensor,
    part: tl.constexpr,
    value_dim: tl.constexpr,
    columns: tl.constexpr,
) -> tl.tensor:
    """Load some columns of a state; zeros where nothing has been seen."""
    value = part * columns + tl.arange(0, columns)
    inside = seen[:, None] & (value < value_dim)[None, :]
    return tl.load(states + (place + key[:, None]) * value_dim + value[None, :], inside, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _decode(
    qkv: tl.tensor,
    z: tl.tensor,
    a: tl.tensor,
    b: tl.tensor,
    convolution: tl.tensor,
    a_log: tl.tensor,
    dt_bias: tl.tensor,
    norm: tl.tensor,
    rings: tl.tensor,
    states: tl.tensor,
    slots: tl.tensor,
    lengths: tl.tensor,
    rows: tl.tensor,
    quantized: tl.tensor,
    scale: tl.tensor,
    qkv_stride: tl.tensor,
    z_stride: tl.tensor,
    a_stride: tl.tensor,
    b_stride: tl.tensor,
    scale_block: tl.tensor,
    factor: tl.tensor,
    eps: tl.tensor,
    key_heads: tl.constexpr,
    value_heads: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    keys: tl.constexpr,
    columns: tl.constexpr,
    kernel: tl.constexpr,
    taps: tl.constexpr,
    channels: tl.constexpr,
    early: tl.constexpr,
) -> None:
    wait_for_inputs(early)
    head = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    slot = tl.load(slots + row)
    position = tl.load(lengths + row) - 1
    key = tl.arange(0, keys)
    is_key = key < key_dim
    start = qkv + row * qkv_stride
    at_q = (head // (value_heads // key_heads)) * key_dim + key
    at_k = at_q + key_heads * key_dim
    x = tl.load(a + row * a_stride + head).to(tl.float32) + tl.load(dt_bias + head)
    rate, strength = tl.load(a_log + head), tl.load(b + row * b_stride + head).to(tl.float32)
    place = (slot * value_heads + head) * key_dim
    parts: tl.constexpr = (value_dim + columns - 1) // columns
    # On its way while what it is updated with is computed: loads do not pass a reduction.
    seen = is_key & (position > 0)
    following = _part(states, place, key, seen, 0, value_dim, columns)
    ring = rings + slot * kernel * channels
    q, new_q = weighted(*(start, ring, convolution, at_q, is_key, position), kernel, taps, channels)
    k, new_k = weighted(*(start, ring, convolution, at_k, is_key, position), kernel, taps, channels)
    q = summed(q)
    k = summed(k)
    q = q * tl.rsqrt(tl.sum(q * q, 0) + 1e-6) * factor
    k = k * tl.rsqrt(tl.sum(k * k, 0) + 1e-6)
    decay = tl.exp(-tl.exp(rate) * softplus(x))
    beta = tl.sigmoid(strength)
    alike = tl.sum(q * k, 0)

    # Whatever else is read comes before the first reduction over a state, too.
    inputs: tl.tuple = ()
    news: tl.tuple = ()
    gates: tl.tuple = ()
    for part in tl.static_range(parts):
        value = part * columns + tl.arange(0, columns)
        is_value = value < value_dim
        at_v = 2 * key_heads * key_dim + head * value_dim + value
        v, new_v = weighted(
            *(start, ring, convolution, at_v, is_value, position), kernel, taps, channels
        )
        inputs = inputs + (v,)  # noqa: RUF005
        news = news + (new_v,)  # noqa: RUF005
        if norm is not None:
            at = z + row * z_stride + head * value_dim + value
            gate = tl.load(at, mask=is_value, other=0.0).to(tl.float32)
            weight = tl.load(norm + value, mask=is_value, other=0.0)
            gates = gates + (weight * gate * tl.sigmoid(gate),)  # noqa: RUF005

    # No other program reads this row of the ring; those of the same key head write the same.
    into_ring = ring + (position % kernel) * channels
    reads: tl.tuple = ()
    squares = 0.0
    for part in tl.static_range(parts):
        value = part * columns + tl.arange(0, columns)
        is_value = value < value_dim
        at_v = 2 * key_heads * key_dim + head * value_dim + value
        tile = states + (place + key[:, None]) * value_dim + value[None, :]
        inside = is_key[:, None] & is_value[None, :]
        state = following.to(tl.float32)
        if part + 1 < parts:
            following = _part(states, place, key, seen, part + 1, value_dim, columns)
        v = summed(inputs[part])
        state = state * decay
        correction = (v - tl.sum(state * k[:, None], 0)) * beta
        # What the corrected state gives: what it gave before, and what the correction adds.
        read = tl.sum(state * q[:, None], 0) + alike * correction
        state += k[:, None] * correction[None, :]
        tl.store(tile, state.to(states.dtype.element_ty), mask=inside)
        keep(into_ring, news[part], at_v, is_value, taps)
        read = tl.where(is_value, read, 0.0)
        reads = reads + (read,)  # noqa: RUF005
        squares += tl.sum(read * read, 0)
    keep(into_ring, new_q, at_q, is_key, taps)
    keep(into_ring, new_k, at_k, is_key, taps)

    out = rows + row * value_heads * value_dim + head * value_dim
    length = tl.rsqrt(squares / value_dim + eps)
    found = 0.0
    normed: tl.tuple = ()
    for part in tl.static_range(parts):
        value = part * columns + tl.arange(0, columns)
        y = reads[part]
        if norm is not None:
            y = y * length * gates[part]
        y = y.to(rows.dtype.element_ty)
        tl.store(out + value, y, mask=value < value_dim)
        normed = normed + (y,)  # noqa: RUF005
        found = tl.maximum(found, tl.max(tl.abs(y.to(tl.float32)), 0))
    if quantized is not None:
        # A head is one block of 128 channels here.
        found = found / 448.0
        found = tl.where(found < 1.1754943508222875e-38, 1.0, found)
        tl.store(scale + head.to(tl.int64) * scale_block + row, found)
        into = quantized + row * value_heads * value_dim + head * value_dim
        for part in tl.static_range(parts):
            value = part * columns + tl.arange(0, columns)
            values = (normed[part].to(tl.float32) / found).to(tl.float8e4nv)
            tl.store(into + value, values, mask=value < value_dim)
