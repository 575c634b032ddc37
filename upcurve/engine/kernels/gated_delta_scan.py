"""The gated delta rule over the tokens of several sequences: two launches, states in place.

In chunks of 64 tokens, with the names of `gated_delta.chunked` and W S = T (beta exp(gamma) K) S:

    R = V - exp(gamma) K S,  V' = T (beta R),  O = exp(gamma) Q S + (Q K^T * D) V'
    S <- exp(gamma_C) S + K^T (exp(gamma_C - gamma) V')

The first kernel does what chunks can do side by side: T beta, and the masked Q K^T. The second
goes through the chunks of a sequence in order, with its columns of the state in registers. Lengths
of keys and queries and decays scale rows of products, so that q, k and v are multiplied as they
lie. Products are in their dtype; sums and the state are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from upcurve.engine import tuning
from upcurve.engine.kernels.gated_delta import CHUNK
from upcurve.engine.kernels.gated_delta_decode import softplus
from upcurve.engine.kernels.groups import tile_of
from upcurve.engine.kernels.sequences import Chunk, Sequences
from upcurve.engine.platform import INTERPRETED, is_amd, multiprocessors, tl, triton

SIDE = tl.constexpr(16)
"""Of the blocks on the diagonal that are inverted side by side: the least that a product takes."""
FACTORS = tl.constexpr(4)
"""Of each chunk and head, 64 of each: of K S, of V' in the state, of Q S; then exp(gamma_C)."""
WIDEN = tl.constexpr(INTERPRETED)
"""The interpreter multiplies bfloat16 wrongly."""


@dataclass(frozen=True, slots=True)
class ScanLaunch:
    """How both kernels are launched."""

    width: int
    """Columns of the state that a program of the second owns; a power of two, at least 16."""
    stages: int
    """Chunks that a program of the second has in flight or in use."""
    warps: int = 4
    prepare_warps: int = 4
    prepare_registers: int = 168
    """Of a thread at most, on NVIDIA GPUs: three programs of four warps share a multiprocessor."""

    @classmethod
    def of(cls, states: torch.Tensor, count: int, dtype: torch.dtype) -> ScanLaunch:
        """Choose for states [slots, heads, Dk, Dv], sequences and the dtype of products.

        Wide enough to read keys seldom, and so narrow that every multiprocessor has a program.
        """
        _, heads, _, value_dim = states.shape
        width = min(64, _power_of_two(value_dim))
        processors = multiprocessors(states.device)
        while width > 16 and 2 * count * heads * -(-value_dim // width) <= processors:
            width //= 2
        if dtype == torch.float32:
            # Exact products of two chunks take more shared memory than there is.
            return cls(min(width, 32), stages=1, prepare_registers=255)
        if is_amd():
            return cls(width, stages=2)
        return cls(width, stages=3, warps=8 if width == 64 else 4)


def scan(
    qkv: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    a_log: torch.Tensor,
    dt_bias: torch.Tensor,
    states: torch.Tensor,
    *,
    key_heads: int,
    sequences: Sequences | None = None,
    launch: ScanLaunch | None = None,
) -> torch.Tensor:
    """Split, normalise, gate, and run the rule over the tokens of N sequences.

    What is launched follows from the shapes alone.

    Args:
        qkv: [T, 2 key_heads * Dk + heads * Dv] after convolution and SiLU, the last dimension
            contiguous.
        a: [T, heads], the last dimension contiguous.
        b: likewise.
        a_log: float32 [heads].
        dt_bias: float32 [heads].
        states: contiguous [slots_total, heads, Dk, Dv], float32 or bfloat16; rows of the slots
            change in place. A sequence without context starts from zeros.
        key_heads: value head j goes with key head j // (heads // key_heads).
        sequences: whose rows, one behind the other, are the T tokens. Where None, they are one that
            continues, and states is its state alone [heads, Dk, Dv].
        launch: chosen from the shapes where None.

    Returns:
        [T, heads, Dv] in qkv's dtype.
    """
    length = len(qkv)
    if sequences is None:
        states = states.unsqueeze(0)
        sequences = Sequences.of((Chunk(0, length, 1, 0),), qkv.device)
    count = len(sequences.slots)
    _, heads, key_dim, value_dim = states.shape
    assert qkv.shape[1] == 2 * key_heads * key_dim + heads * value_dim
    assert qkv.stride(1) == a.stride(1) == b.stride(1) == 1
    assert states.is_contiguous()
    launch = launch or tuning.choose(
        ScanLaunch.of(states, count, qkv.dtype),
        "gated_delta_scan",
        qkv.device,
        rows=length,
        key_heads=key_heads,
        heads=heads,
        dtype=qkv.dtype,
    )
    places = length // CHUNK + count

    def new(*size: int, dtype: torch.dtype = qkv.dtype) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device=qkv.device)

    solved = new(places, heads, CHUNK, CHUNK)
    within = new(places, heads, CHUNK, CHUNK)
    factors = new(places, heads, FACTORS.value, CHUNK, dtype=torch.float32)
    out = new(length, heads, value_dim)
    exact = qkv.dtype == torch.float32 or is_amd()
    _prepare[(places, heads)](
        *(qkv, a, b, a_log, dt_bias, sequences.starts, solved, within, factors, count),
        *(qkv.stride(0), a.stride(0), b.stride(0), key_dim**-0.5),
        key_heads=key_heads,
        heads=heads,
        key_dim=key_dim,
        chunk=CHUNK,
        keys=_power_of_two(key_dim),
        lanes=_power_of_two(count),
        precision="ieee" if exact else "tf32",
        num_warps=launch.prepare_warps,
        **({} if is_amd() else {"maxnreg": launch.prepare_registers}),
    )
    _scan[(heads, -(-value_dim // launch.width), count)](
        *(qkv, sequences.slots, sequences.starts, sequences.contexts),
        *(solved, within, factors, states, out, qkv.stride(0)),
        key_heads=key_heads,
        heads=heads,
        key_dim=key_dim,
        value_dim=value_dim,
        chunk=CHUNK,
        keys=_power_of_two(key_dim),
        width=launch.width,
        num_warps=launch.warps,
        num_stages=launch.stages,
    )
    return out


def _power_of_two(size: int) -> int:
    return max(16, 1 << (size - 1).bit_length())


@triton.jit  # type: ignore[untyped-decorator]
def _product(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Multiply in the dtype of both, which is exact in float32; sum in float32."""
    if WIDEN:
        x, y = x.to(tl.float32), y.to(tl.float32)
    return tl.dot(x, y, input_precision="ieee")


@triton.jit  # type: ignore[untyped-decorator]
def _doubled(
    inverse: tl.tensor,
    system: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    side: tl.constexpr,
    precision: tl.constexpr,
) -> tl.tensor:
    """From inverses of blocks of a side on the diagonal of I + system to those of two together.

    [[X, 0], [L, Y]]^-1 = [[X^-1, 0], [-Y^-1 L X^-1, Y^-1]]: stable where keys are nearly parallel,
    which a power series is not.
    """
    lower = (row // (2 * side) == column // (2 * side)) & (row // side > column // side)
    below = tl.where(lower, system, 0.0)
    below = tl.dot(below, inverse, input_precision=precision)
    return inverse - tl.dot(inverse, below, input_precision=precision)


@triton.jit  # type: ignore[untyped-decorator]
def _inverse(system: tl.tensor, chunk: tl.constexpr, precision: tl.constexpr) -> tl.tensor:
    """Invert I + system, whose system is strictly lower triangular [chunk, chunk]."""
    many: tl.constexpr = chunk // SIDE
    block, line = tl.arange(0, many), tl.arange(0, SIDE)
    same = (block[:, None] == block[None, :])[:, None, :, None]
    four = tl.reshape(system, (many, SIDE, many, SIDE))
    blocks = tl.sum(tl.where(same, four, 0.0), 2)
    row, column = line[None, :, None], line[None, None, :]
    inverse = tl.where(row == column, 1.0, 0.0) - tl.where(row // 2 == column // 2, blocks, 0.0)
    inverse = _doubled(inverse, blocks, row, column, 2, precision)
    inverse = _doubled(inverse, blocks, row, column, 4, precision)
    inverse = _doubled(inverse, blocks, row, column, 8, precision)
    four = tl.where(same, inverse[:, :, None, :], 0.0)
    inverse = tl.reshape(four, (chunk, chunk))
    place = tl.arange(0, chunk)
    row, column = place[:, None], place[None, :]
    inverse = _doubled(inverse, system, row, column, 16, precision)
    return _doubled(inverse, system, row, column, 32, precision)


@triton.jit  # type: ignore[untyped-decorator]
def _length_inverse(rows: tl.tensor) -> tl.tensor:
    """Return 1 / sqrt(sum of squares + 1e-6) of each row."""
    rows = rows.to(tl.float32)
    return tl.rsqrt(tl.sum(rows * rows, 1) + 1e-6)


@triton.jit  # type: ignore[untyped-decorator]
def _prepare(
    qkv: tl.tensor,
    a: tl.tensor,
    b: tl.tensor,
    a_log: tl.tensor,
    dt_bias: tl.tensor,
    starts: tl.tensor,
    solved_out: tl.tensor,
    within_out: tl.tensor,
    factors_out: tl.tensor,
    count: tl.tensor,
    qkv_stride: tl.tensor,
    a_stride: tl.tensor,
    b_stride: tl.tensor,
    scale: tl.tensor,
    key_heads: tl.constexpr,
    heads: tl.constexpr,
    key_dim: tl.constexpr,
    chunk: tl.constexpr,
    keys: tl.constexpr,
    lanes: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """Compute of one chunk and value head what needs no state."""
    _, first, end = tile_of(starts + 1, tl.program_id(0), count, lanes, False, chunk)
    if first >= end:
        return
    head = tl.program_id(1)
    place = tl.arange(0, chunk)
    is_token = first + place < end
    token = (first + place).to(tl.int64)
    key = tl.arange(0, keys)
    inside = is_token[:, None] & (key < key_dim)[None, :]
    start = qkv + first.to(tl.int64) * qkv_stride + (head // (heads // key_heads)) * key_dim
    at = place[:, None] * qkv_stride + key[None, :]
    q = tl.load(start + at, mask=inside, other=0.0)
    k = tl.load(start + key_heads * key_dim + at, mask=inside, other=0.0)

    # Tokens behind the end decay nothing and correct nothing: the state passes them unchanged.
    x = tl.load(a + token * a_stride + head, mask=is_token, other=0.0).to(tl.float32)
    x += tl.load(dt_bias + head)
    g = tl.where(is_token, -tl.exp(tl.load(a_log + head)) * softplus(x), 0.0)
    beta = tl.load(b + token * b_stride + head, mask=is_token, other=0.0).to(tl.float32)
    beta = tl.where(is_token, tl.sigmoid(beta), 0.0)
    gamma = tl.cumsum(g, 0)
    last = tl.sum(g, 0)
    of_q, of_k = _length_inverse(q) * scale, _length_inverse(k)

    index = (tl.program_id(0) * heads + head).to(tl.int64)
    at = factors_out + index * FACTORS * chunk + place
    tl.store(at, of_k * tl.exp(gamma))
    tl.store(at + chunk, of_k * tl.exp(last - gamma))
    tl.store(at + 2 * chunk, of_q * tl.exp(gamma))
    tl.store(at + 3 * chunk, tl.exp(last) + tl.zeros_like(gamma))

    upto = place[:, None] >= place[None, :]
    # Masked before the exponential: above the diagonal it would overflow.
    decay = tl.exp(tl.where(upto, gamma[:, None] - gamma[None, :], float("-inf"))) * of_k[None, :]
    at = place[:, None] * chunk + place[None, :]
    within = _product(q, tl.trans(k)) * decay * of_q[:, None]
    tl.store(within_out + index * chunk * chunk + at, within.to(within_out.dtype.element_ty))
    system = _product(k, tl.trans(k)) * decay * (beta * of_k)[:, None]
    system = tl.where(place[:, None] > place[None, :], system, 0.0)
    solved = _inverse(system, chunk, precision) * beta[None, :]
    tl.store(solved_out + index * chunk * chunk + at, solved.to(solved_out.dtype.element_ty))


@triton.jit  # type: ignore[untyped-decorator]
def _scan(
    qkv: tl.tensor,
    slots: tl.tensor,
    starts: tl.tensor,
    contexts: tl.tensor,
    solved_in: tl.tensor,
    within_in: tl.tensor,
    factors_in: tl.tensor,
    states: tl.tensor,
    out: tl.tensor,
    qkv_stride: tl.tensor,
    key_heads: tl.constexpr,
    heads: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    chunk: tl.constexpr,
    keys: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """Go through the chunks of one sequence with some columns of one value head's state."""
    head, sequence = tl.program_id(0), tl.program_id(2)
    begin, end = tl.load(starts + sequence), tl.load(starts + sequence + 1)
    place = tl.arange(0, chunk)
    key = tl.arange(0, keys)
    value = tl.program_id(1) * width + tl.arange(0, width)
    is_key, is_value = key < key_dim, value < value_dim
    slot = tl.load(slots + sequence)
    tile = states + ((slot * heads + head) * key_dim + key[:, None]) * value_dim + value[None, :]
    inside = is_key[:, None] & is_value[None, :]
    known = inside & (tl.load(contexts + sequence) > 0)
    state = tl.load(tile, mask=known, other=0.0).to(tl.float32)

    dtype: tl.constexpr = qkv.dtype.element_ty
    square = place[:, None] * chunk + place[None, :]
    rows_of_keys = place[:, None] * qkv_stride + key[None, :]
    rows_of_values = place[:, None] * qkv_stride + value[None, :]
    index = ((begin // chunk + sequence) * heads + head).to(tl.int64)
    for done in range(0, end - begin, chunk):
        first = (begin + done).to(tl.int64)
        is_token = (first + place < end)[:, None]
        here = index + (done // chunk) * heads
        of_q = qkv + first * qkv_stride + (head // (heads // key_heads)) * key_dim
        of_v = qkv + first * qkv_stride + 2 * key_heads * key_dim + head * value_dim
        is_pair = is_token & is_key[None, :]
        k = tl.load(of_q + key_heads * key_dim + rows_of_keys, mask=is_pair, other=0.0)
        v = tl.load(of_v + rows_of_values, mask=is_token & is_value[None, :], other=0.0)
        solved = tl.load(solved_in + here * chunk * chunk + square)
        q = tl.load(of_q + rows_of_keys, mask=is_pair, other=0.0)
        within = tl.load(within_in + here * chunk * chunk + square)
        factors = factors_in + here * FACTORS * chunk
        at_k, at_new = tl.load(factors + place), tl.load(factors + chunk + place)
        at_q, kept = tl.load(factors + 2 * chunk + place), tl.load(factors + 3 * chunk)

        narrow = state.to(dtype)
        rest = v.to(tl.float32) - at_k[:, None] * _product(k, narrow)
        read = at_q[:, None] * _product(q, narrow)
        new = _product(solved, rest.to(dtype))
        state = state * kept + _product(tl.trans(k), (at_new[:, None] * new).to(dtype))
        read += _product(within, new.to(dtype))
        at = out + (first * heads + head) * value_dim
        at += place[:, None] * (heads * value_dim) + value[None, :]
        tl.store(at, read.to(dtype), mask=is_token & is_value[None, :])
    tl.store(tile, state.to(states.dtype.element_ty), mask=inside)
