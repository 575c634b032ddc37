"""The two kernels of `gated_delta_scan`, which says what they compute."""

from __future__ import annotations

from upcurve.engine.kernels.gated_delta_token import softplus
from upcurve.engine.kernels.groups import tile_of
from upcurve.engine.platform import INTERPRETED, tl, triton

SIDE = tl.constexpr(16)
"""Of the blocks on the diagonal that are inverted side by side: the least that a product takes."""
FACTORS = tl.constexpr(4)
"""Of each chunk and head, 64 of each: of K S, of V' in the state, of Q S; then exp(gamma_C)."""
WIDEN = tl.constexpr(INTERPRETED)
"""The interpreter multiplies bfloat16 wrongly."""


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


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def prepare(
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
def advance(
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
