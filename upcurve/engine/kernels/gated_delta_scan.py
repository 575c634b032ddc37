"""The gated delta rule over many tokens of one sequence: two launches, the state in place.

The algebra is that of `gated_delta.chunked`, in chunks of 64 tokens. The first kernel does what
chunks can do side by side: norms, gates, the inverse of the unit lower triangular system, whose
blocks on the diagonal are inverted by forward substitution (stable where keys are nearly parallel,
which a power series of the whole is not). The second goes through the
chunks in order, with its columns of the state in registers. Sums and the state are float32.
"""

from __future__ import annotations

import torch

from upcurve.engine.kernels.gated_delta import CHUNK
from upcurve.engine.kernels.gated_delta_decode import softplus
from upcurve.engine.platform import is_amd, tl, triton

SIDE = tl.constexpr(16)
"""Of the blocks that are inverted row by row; a chunk has four of them on its diagonal."""
WIDTH = 32
"""Columns of the state that a program of the second kernel owns."""
WARPS = 4


def scan(
    qkv: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    a_log: torch.Tensor,
    dt_bias: torch.Tensor,
    state: torch.Tensor,
    *,
    key_heads: int,
) -> torch.Tensor:
    """Split, normalise, gate, and run the rule over T tokens.

    Products of a bfloat16 model are TF32 on NVIDIA and bfloat16 on AMD; else they are exact.

    Args:
        qkv: [T, 2 key_heads * Dk + heads * Dv] after convolution and SiLU, the last dimension
            contiguous.
        a: [T, heads], the last dimension contiguous.
        b: likewise.
        a_log: float32 [heads].
        dt_bias: float32 [heads].
        state: contiguous [heads, Dk, Dv], float32 or bfloat16; changed in place.
        key_heads: value head j goes with key head j // (heads // key_heads).

    Returns:
        float32 [T, heads, Dv].
    """
    length = len(qkv)
    heads, key_dim, value_dim = state.shape
    assert qkv.shape[1] == 2 * key_heads * key_dim + heads * value_dim
    assert qkv.stride(1) == a.stride(1) == b.stride(1) == 1
    assert state.is_contiguous()
    chunks = -(-length // CHUNK)
    sizes = {
        "key_heads": key_heads,
        "heads": heads,
        "key_dim": key_dim,
        "value_dim": value_dim,
        "chunk": CHUNK,
        "keys": _power_of_two(key_dim),
        "narrow": qkv.dtype != torch.float32 and is_amd(),
        "precision": "tf32" if qkv.dtype != torch.float32 and not is_amd() else "ieee",
    }

    def new(*size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.float32, device=qkv.device)

    gamma = new(heads, chunks * CHUNK)
    u, w = new(heads, chunks * CHUNK, value_dim), new(heads, chunks * CHUNK, key_dim)
    within = new(heads, chunks * CHUNK, CHUNK)
    _prepare[(chunks, heads)](
        *(qkv, a, b, a_log, dt_bias, gamma, u, w, within, torch.empty_like(within), length),
        *(qkv.stride(0), a.stride(0), b.stride(0), key_dim**-0.5),
        **sizes,
        values=_power_of_two(value_dim),
        num_warps=WARPS,
    )
    out = new(length, heads, value_dim)
    width = min(WIDTH, max(16, _power_of_two(value_dim)))
    _scan[(heads, -(-value_dim // width))](
        *(qkv, gamma, u, w, within, state, out, length, qkv.stride(0), key_dim**-0.5),
        **sizes,
        width=width,
        num_warps=WARPS,
        # Chunks in flight; exact products of two take more shared memory than there is.
        num_stages=1 if qkv.dtype == torch.float32 else 2,
    )
    return out


def _power_of_two(size: int) -> int:
    return max(16, 1 << (size - 1).bit_length())


@triton.jit  # type: ignore[untyped-decorator]
def _product(
    x: tl.tensor, y: tl.tensor, narrow: tl.constexpr, precision: tl.constexpr
) -> tl.tensor:
    if narrow:
        return tl.dot(x.to(tl.bfloat16), y.to(tl.bfloat16))
    return tl.dot(x, y, input_precision=precision)


@triton.jit  # type: ignore[untyped-decorator]
def _unit_rows(
    pointer: tl.tensor,
    stride: tl.tensor,
    token: tl.tensor,
    is_token: tl.tensor,
    key: tl.tensor,
    key_dim: tl.constexpr,
) -> tl.tensor:
    """Load rows and divide each by its length."""
    at = pointer + token.to(tl.int64)[:, None] * stride + key[None, :]
    rows = tl.load(at, mask=is_token[:, None] & (key < key_dim)[None, :], other=0.0)
    rows = rows.to(tl.float32)
    return rows * tl.rsqrt(tl.sum(rows * rows, 1) + 1e-6)[:, None]


@triton.jit  # type: ignore[untyped-decorator]
def _prepare(
    qkv: tl.tensor,
    a: tl.tensor,
    b: tl.tensor,
    a_log: tl.tensor,
    dt_bias: tl.tensor,
    gamma_out: tl.tensor,
    u_out: tl.tensor,
    w_out: tl.tensor,
    within_out: tl.tensor,
    scratch: tl.tensor,
    length: tl.tensor,
    qkv_stride: tl.tensor,
    a_stride: tl.tensor,
    b_stride: tl.tensor,
    scale: tl.tensor,
    key_heads: tl.constexpr,
    heads: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    chunk: tl.constexpr,
    keys: tl.constexpr,
    narrow: tl.constexpr,
    precision: tl.constexpr,
    values: tl.constexpr,
) -> None:
    head = tl.program_id(1)
    place = tl.arange(0, chunk)
    token = tl.program_id(0) * chunk + place
    is_token = token < length
    key, value = tl.arange(0, keys), tl.arange(0, values)
    start = qkv + (head // (heads // key_heads)) * key_dim
    q = _unit_rows(start, qkv_stride, token, is_token, key, key_dim) * scale
    k = _unit_rows(start + key_heads * key_dim, qkv_stride, token, is_token, key, key_dim)

    # Tokens behind the end decay nothing and correct nothing: the state passes them unchanged.
    row = token.to(tl.int64)
    x = tl.load(a + row * a_stride + head, mask=is_token, other=0.0).to(tl.float32)
    x += tl.load(dt_bias + head)
    g = tl.where(is_token, -tl.exp(tl.load(a_log + head)) * softplus(x), 0.0)
    beta = tl.sigmoid(tl.load(b + row * b_stride + head, mask=is_token, other=0.0).to(tl.float32))
    beta = tl.where(is_token, beta, 0.0)

    gamma = tl.cumsum(g, 0)
    below = place[:, None] > place[None, :]
    upto = place[:, None] >= place[None, :]
    # Masked before the exponential: above the diagonal it would overflow.
    decay = tl.exp(tl.where(upto, gamma[:, None] - gamma[None, :], 0.0))
    beta_k = beta[:, None] * k
    k_t = tl.trans(k)
    system = tl.where(below, _product(beta_k, k_t, narrow, precision) * decay, 0.0)
    within = tl.where(upto, _product(q, k_t, narrow, precision) * decay, 0.0)

    base = (head * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * chunk + place
    # Through memory, because a tile cannot be cut into blocks: first the blocks on the diagonal.
    tl.store(scratch + base[:, None] * chunk + place[None, :], system)
    tl.debug_barrier()
    block, line = tl.arange(0, chunk // SIDE), tl.arange(0, SIDE)
    corner = scratch + tl.min(base, 0) * chunk
    row_at = block[:, None, None] * SIDE + line[None, :, None]
    column_at = block[:, None, None] * SIDE + line[None, None, :]
    blocks = tl.load(corner + row_at * chunk + column_at)
    # Row by row: T_i = e_i - A_i T, where A_i sees only the rows above.
    inverses = tl.zeros_like(blocks) + tl.where(line[:, None] == line[None, :], 1.0, 0.0)[None]
    for index in range(1, SIDE):
        is_row = (line == index)[None, :, None]
        factors = tl.sum(tl.where(is_row, blocks, 0.0), 1)
        change = tl.sum(factors[:, :, None] * inverses, 1)
        inverses -= tl.where(is_row, change[:, None, :], 0.0)
    tl.debug_barrier()
    tl.store(corner + row_at * chunk + column_at, inverses)
    tl.debug_barrier()
    on_diagonal = place[:, None] // SIDE == place[None, :] // SIDE
    at = scratch + base[:, None] * chunk + place[None, :]
    diagonal = tl.load(at, mask=on_diagonal, other=0.0)
    # I + A = D^-1 (I + M) with M = D N, whose fourth power is zero: (I + M)^-1 = (I - M)(I + M^2).
    # Not in bfloat16: errors of the inverse grow where keys are alike and nothing is forgotten.
    fine: tl.constexpr = "ieee" if narrow else precision
    rest = _product(diagonal, tl.where(on_diagonal, 0.0, system), False, fine)
    identity = tl.where(place[:, None] == place[None, :], 1.0, 0.0)
    square = identity + _product(rest, rest, False, fine)
    inverse = _product(identity - rest, square, False, fine)
    inverse = _product(inverse, diagonal, False, fine)

    tl.store(gamma_out + base, gamma)
    tl.store(within_out + base[:, None] * chunk + place[None, :], within)
    w = _product(inverse, beta_k * tl.exp(gamma)[:, None], narrow, precision)
    tl.store(w_out + base[:, None] * key_dim + key[None, :], w, mask=(key < key_dim)[None, :])
    at = qkv + row[:, None] * qkv_stride + 2 * key_heads * key_dim + head * value_dim
    is_value = (value < value_dim)[None, :]
    v = tl.load(at + value[None, :], mask=is_token[:, None] & is_value, other=0.0)
    u = _product(inverse, beta[:, None] * v.to(tl.float32), narrow, precision)
    tl.store(u_out + base[:, None] * value_dim + value[None, :], u, mask=is_value)


@triton.jit  # type: ignore[untyped-decorator]
def _scan(
    qkv: tl.tensor,
    gamma_in: tl.tensor,
    u_in: tl.tensor,
    w_in: tl.tensor,
    within_in: tl.tensor,
    states: tl.tensor,
    out: tl.tensor,
    length: tl.tensor,
    qkv_stride: tl.tensor,
    scale: tl.tensor,
    key_heads: tl.constexpr,
    heads: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    chunk: tl.constexpr,
    keys: tl.constexpr,
    narrow: tl.constexpr,
    precision: tl.constexpr,
    width: tl.constexpr,
) -> None:
    head = tl.program_id(0)
    place = tl.arange(0, chunk)
    key = tl.arange(0, keys)
    value = tl.program_id(1) * width + tl.arange(0, width)
    is_key, is_value = key < key_dim, value < value_dim
    tile = states + (head * key_dim + key[:, None]) * value_dim + value[None, :]
    inside = is_key[:, None] & is_value[None, :]
    state = tl.load(tile, mask=inside, other=0.0).to(tl.float32)
    start = qkv + (head // (heads // key_heads)) * key_dim
    chunks = (length + chunk - 1) // chunk
    for index in range(chunks):
        token = index * chunk + place
        is_token = token < length
        base = (head * chunks + index).to(tl.int64) * chunk + place
        gamma = tl.load(gamma_in + base)
        last = tl.sum(tl.where(place == chunk - 1, gamma, 0.0), 0)
        w = tl.load(w_in + base[:, None] * key_dim + key[None, :], mask=is_key[None, :], other=0.0)
        u = tl.load(
            u_in + base[:, None] * value_dim + value[None, :], mask=is_value[None, :], other=0.0
        )
        new = u - _product(w, state, narrow, precision)
        q = _unit_rows(start, qkv_stride, token, is_token, key, key_dim) * scale
        read = _product(q * tl.exp(gamma)[:, None], state, narrow, precision)
        within = tl.load(within_in + base[:, None] * chunk + place[None, :])
        read += _product(within, new, narrow, precision)
        at = out + (token.to(tl.int64)[:, None] * heads + head) * value_dim + value[None, :]
        tl.store(at, read, mask=is_token[:, None] & is_value[None, :])
        k = _unit_rows(start + key_heads * key_dim, qkv_stride, token, is_token, key, key_dim)
        k = k * tl.exp(last - gamma)[:, None]
        state = state * tl.exp(last) + _product(tl.trans(k), new, narrow, precision)
    tl.store(tile, state.to(states.dtype.element_ty), mask=inside)
