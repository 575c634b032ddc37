"""A tile of one row's logits: the tokens of it in order, their noise, the best of it."""

from __future__ import annotations

from upcurve.engine.platform import tl, triton

PIECES, LANES = 4, 2048
"""Of a tile: Philox gives four words at once, one for each piece. Noise and sums are made of it, so
that it must not depend on the batch."""
ROUNDS = 7
"""Of Philox."""

TILE = tl.constexpr(PIECES * LANES)
P, L, N_ROUNDS = (tl.constexpr(each) for each in (PIECES, LANES, ROUNDS))
NO_ID = tl.constexpr(2**31 - 1)


@triton.jit  # type: ignore[untyped-decorator]
def tile_of(start: tl.tensor, tile: tl.tensor, vocabulary: tl.tensor) -> tl.tuple:
    """Return the pieces of a tile, float32 [LANES] each: of NaN infinity, past the end -infinity.

    So a row with a NaN has no finite maximum.
    """
    first = tile * TILE
    return (
        _piece(start, first, vocabulary),
        _piece(start, first + L, vocabulary),
        _piece(start, first + 2 * L, vocabulary),
        _piece(start, first + 3 * L, vocabulary),
    )


@triton.jit  # type: ignore[untyped-decorator]
def _piece(start: tl.tensor, first: tl.tensor, vocabulary: tl.tensor) -> tl.tensor:
    id = first + tl.arange(0, L)  # noqa: A001
    x = tl.load(start + id, mask=id < vocabulary, other=float("-inf")).to(tl.float32)
    return tl.where(x == x, x, float("inf"))


@triton.jit  # type: ignore[untyped-decorator]
def largest_of(x: tl.tuple) -> tl.tensor:
    """Return the largest logit of a tile."""
    return tl.max(tl.maximum(tl.maximum(x[0], x[1]), tl.maximum(x[2], x[3])), 0)


@triton.jit  # type: ignore[untyped-decorator]
def first_of(x: tl.tuple, tile: tl.tensor, logit: tl.tensor) -> tl.tensor:
    """Return the lowest id that has this logit in a tile."""
    id = tl.full([L], NO_ID, tl.int32)  # noqa: A001
    for piece in tl.static_range(P):
        own = tile * TILE + piece * L + tl.arange(0, L)
        id = tl.where(x[piece] == logit, tl.minimum(id, own), id)  # noqa: A001
    return tl.min(id, 0)


@triton.jit  # type: ignore[untyped-decorator]
def masses_of(x: tl.tuple, base: tl.tensor, scale: tl.tensor) -> tl.tensor:
    """Return exp((x - base) * scale), summed over the pieces of a tile: [LANES]."""
    sums = tl.exp((x[0] - base) * scale)
    for piece in tl.static_range(1, P):
        sums += tl.exp((x[piece] - base) * scale)
    return sums


@triton.jit  # type: ignore[untyped-decorator]
def before(x: tl.tuple, tile: tl.tensor, key: tl.tensor, narrow: tl.constexpr) -> tl.tuple:
    """Return the pieces of a tile with -infinity instead of all but the tokens of larger keys."""
    first = tile * TILE + tl.arange(0, L)
    return (
        _before(x[0], first, key, narrow),
        _before(x[1], first + L, key, narrow),
        _before(x[2], first + 2 * L, key, narrow),
        _before(x[3], first + 3 * L, key, narrow),
    )


@triton.jit  # type: ignore[untyped-decorator]
def _before(
    x: tl.tensor,
    id: tl.tensor,  # noqa: A002
    key: tl.tensor,
    narrow: tl.constexpr,
) -> tl.tensor:
    return tl.where(key_of(order_of(x, narrow), id) > key, x, float("-inf"))


@triton.jit  # type: ignore[untyped-decorator]
def drawn_of(
    x: tl.tuple,
    start: tl.tensor,
    tile: tl.tensor,
    vocabulary: tl.tensor,
    base: tl.tensor,
    scale: tl.tensor,
    seed: tl.tensor,
    number: tl.tensor,
    bound: tl.tensor,
    bounded: tl.constexpr,
    narrow: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Return the highest (x - base) * scale + noise of a tile, and the lowest id that has it.

    Where `bounded`, of tokens whose key is above a bound; -infinity where there are none.
    """
    lane = tl.arange(0, L)
    if bounded:
        x = before(x, tile, bound, narrow)
    words = words_of(seed, number, tile * L + lane)
    # Logarithms of all noise cost more than the rest: of each lane the piece that can be highest
    # has its own computed, the others only where they can be as high as the best of those.
    none = tl.full([L], float("-inf"), tl.float32)
    highest, other, scaled = none, none, none
    id, bits = tile * TILE + lane, words[0]  # noqa: A001
    for piece in tl.static_range(P):
        own = tile * TILE + piece * L + lane
        value = (x[piece] - base) * scale
        most = value + gumbel_bound_of(words[piece])
        other = tl.maximum(other, tl.minimum(most, highest))
        is_higher = most > highest
        id = tl.where(is_higher, own, id)  # noqa: A001
        bits = tl.where(is_higher, words[piece], bits)
        scaled = tl.where(is_higher, value, scaled)
        highest = tl.maximum(highest, most)
    best = scaled + gumbel_of(bits)
    top = tl.max(best, 0)
    if tl.max(other, 0) >= top:
        # Anew, so that nothing is kept for what is rare.
        for number_of_piece in range(P):
            first = tile * TILE + number_of_piece * L
            again, its_id = _piece(start, first, vocabulary), first + lane
            if bounded:
                again = _before(again, its_id, bound, narrow)
            score = (again - base) * scale + noise_of(seed, number, its_id)
            is_first = (score > best) | ((score == best) & (its_id < id))
            id = tl.where(is_first, its_id, id)  # noqa: A001
            best = tl.maximum(best, score)
        top = tl.max(best, 0)
    return top, tl.min(tl.where(best == top, id, NO_ID), 0)


@triton.jit  # type: ignore[untyped-decorator]
def key_of(order: tl.tensor, id: tl.tensor) -> tl.tensor:  # noqa: A002
    """Return int64: the more likely token has the larger, of equal ones the lower id."""
    return (order.to(tl.int64) << 32) | (id ^ NO_ID).to(tl.int64)


@triton.jit  # type: ignore[untyped-decorator]
def order_and_id(key: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Return what a key was made of."""
    return (key >> 32).to(tl.int32), (key & 0x7FFFFFFF).to(tl.int32) ^ NO_ID


@triton.jit  # type: ignore[untyped-decorator]
def order_of(x: tl.tensor, narrow: tl.constexpr) -> tl.tensor:
    """Return whole numbers that order as float32 do: of bfloat16 (rounded down to one) 16 bits."""
    # Both zeros are one number.
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    # Of negative numbers the larger has the smaller bits.
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return order >> 16 if narrow else order


@triton.jit  # type: ignore[untyped-decorator]
def words_of(seed: tl.tensor, number: tl.tensor, counters: tl.tensor) -> tl.tuple:
    """Compute `sampling.philox`: four words."""
    zeros = counters * 0
    low, high = zeros + number.to(tl.int32), zeros + (number >> 32).to(tl.int32)
    return tl.philox(seed, counters, low, high, zeros, N_ROUNDS)


@triton.jit  # type: ignore[untyped-decorator]
def noise_of(seed: tl.tensor, number: tl.tensor, id: tl.tensor) -> tl.tensor:  # noqa: A002
    """Return the noise of tokens anywhere."""
    words = words_of(seed, number, id // TILE * L + id % L)
    piece = id % TILE // L
    bits = tl.where(piece < 1, words[0], words[1])
    bits = tl.where(piece < 2, bits, words[2])
    return gumbel_of(tl.where(piece < 3, bits, words[3]))


@triton.jit  # type: ignore[untyped-decorator]
def gumbel_of(bits: tl.tensor) -> tl.tensor:
    """Return the noise of uint32, as `sampling.gumbel_noise`."""
    u = tl.minimum((bits.to(tl.float32) + 0.5) * 2.3283064365386963e-10, 0.99999994)
    exponential = tl.where(u < 0.0009765625, u + 0.5 * u * u, -tl.log(1 - u))
    return -tl.log(exponential)


@triton.jit  # type: ignore[untyped-decorator]
def gumbel_bound_of(bits: tl.tensor) -> tl.tensor:
    """Return no less than the noise of uint32.

    -ln(-ln(1 - u)) <= -ln(u); the logarithm of a float to base 2 is at least its exponent and its
    mantissa, as a number in [0, 1), together, and at most 0.09 more.
    """
    # With eight bits of the mantissa; 2**23 + n has n in its lowest bits.
    cut = bits.to(tl.float32).to(tl.int32, bitcast=True) >> 15
    logarithm = (cut | 0x4B000000).to(tl.float32, bitcast=True) - 8388608.0
    # ln(2) (127 + 32), and a little for what is rounded; ln(2) / 256.
    return 110.211 - 0.0027076061740622 * logarithm
