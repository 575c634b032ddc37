"""What attention needs of a projection: queries and keys normalised and rotated, and stored."""

from __future__ import annotations

import torch

from upcurve.engine.platform import overlapping, tl, triton, wait_for_inputs

HEADS_AT_ONCE = 4
"""Queries of a program; a warp has one of 256 channels."""


def prepare(
    projected: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    eps: float,
    cos: torch.Tensor,
    sin: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    places: torch.Tensor,
) -> torch.Tensor:
    """Normalise and rotate queries and keys in float32, and store keys and values; one launch.

    Args:
        projected: [T, heads * 2 * D + 2 * kv_heads * D], the last dimension contiguous: of each
            head its query, then its gate; then keys; then values.
        q_weight: float32 [D], zero-centred: what is normalised is multiplied by 1 + w.
        k_weight: likewise.
        eps: added to the mean square.
        cos: float32 [T, 1, R], contiguous: of the first R channels, in pairs (i, i + R / 2).
        sin: likewise.
        keys: [pages, page_size, kv_heads, D], contiguous; float8_e4m3fn is written with scale 1.
        values: likewise.
        places: int64 [T]: where each token goes (page * page_size + offset).

    Returns:
        [T, heads, D] in the dtype of `projected`.
    """
    tokens, width = projected.shape
    _, _, kv_heads, dim = keys.shape
    heads = (width - 2 * kv_heads * dim) // (2 * dim)
    assert projected.stride(1) == 1
    assert keys.is_contiguous()
    assert values.is_contiguous()
    assert cos.is_contiguous()
    assert sin.is_contiguous()
    queries = torch.empty(tokens, heads, dim, dtype=projected.dtype, device=projected.device)
    at_once = max(HEADS_AT_ONCE, triton.next_power_of_2(kv_heads))
    if tokens:
        _prepare[(tokens, triton.cdiv(heads, at_once) + 1)](
            *(projected, q_weight, k_weight, cos, sin, keys, values, places, queries),
            *(projected.stride(0), eps),
            heads=heads,
            kv_heads=kv_heads,
            dim=dim,
            lanes=triton.next_power_of_2(dim),
            rotated=cos.shape[-1],
            at_once=at_once,
            **overlapping(projected.device),
        )
    return queries


@triton.jit  # type: ignore[untyped-decorator]
def _turned(
    start: tl.tensor,
    weight: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    token: tl.tensor,
    offset: tl.tensor,
    is_head: tl.tensor,
    eps: tl.tensor,
    dim: tl.constexpr,
    lanes: tl.constexpr,
    rotated: tl.constexpr,
) -> tl.tensor:
    """Load rows at offsets, normalise and rotate them: float32 [rows, lanes]."""
    half: tl.constexpr = rotated // 2
    channel = tl.arange(0, lanes)
    # Its partner is read again, from the nearest cache.
    partner = tl.where(channel < half, channel + half, channel - half)
    partner = tl.where(channel < rotated, partner, channel)
    inside = is_head[:, None] & (channel < dim)[None, :]
    x = tl.load(start + offset[:, None] + channel[None, :], mask=inside, other=0.0)
    other = tl.load(start + offset[:, None] + partner[None, :], mask=inside, other=0.0)
    factor = 1.0 + tl.load(weight + channel, mask=channel < dim, other=0.0)
    other_factor = 1.0 + tl.load(weight + partner, mask=channel < dim, other=0.0)
    at = token * rotated + channel
    of_cos = tl.load(cos + at, mask=channel < rotated, other=1.0)
    of_sin = tl.load(sin + at, mask=channel < rotated, other=0.0)
    of_sin = tl.where(channel < half, -of_sin, of_sin)
    x = x.to(tl.float32)
    norm = tl.rsqrt(tl.sum(x * x, 1) / dim + eps)[:, None]
    x = x * norm * factor[None, :]
    other = other.to(tl.float32) * norm * other_factor[None, :]
    return x * of_cos[None, :] + other * of_sin[None, :]


@triton.jit  # type: ignore[untyped-decorator]
def _store(cache: tl.tensor, at: tl.tensor, rows: tl.tensor, inside: tl.tensor) -> None:
    if cache.dtype.element_ty == tl.float8e4nv:
        # What is larger would be NaN.
        rows = tl.minimum(tl.maximum(rows, -448.0), 448.0)
    tl.store(cache + at, rows.to(cache.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _prepare(
    projected: tl.tensor,
    q_weight: tl.tensor,
    k_weight: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    places: tl.tensor,
    queries: tl.tensor,
    row_stride: tl.tensor,
    eps: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    dim: tl.constexpr,
    lanes: tl.constexpr,
    rotated: tl.constexpr,
    at_once: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Prepare some queries of a token, or all its keys and values."""
    wait_for_inputs(early)
    token = tl.program_id(0).to(tl.int64)
    start = projected + token * row_stride
    channel = tl.arange(0, lanes)
    index = tl.arange(0, at_once)
    if tl.program_id(1) < tl.num_programs(1) - 1:
        head = tl.program_id(1) * at_once + index
        offset = head * 2 * dim
        turned = _turned(
            start, q_weight, cos, sin, token, offset, head < heads, eps, dim, lanes, rotated
        )
        at = (token * heads + head[:, None]) * dim + channel[None, :]
        inside = (head < heads)[:, None] & (channel < dim)[None, :]
        tl.store(queries + at, turned.to(queries.dtype.element_ty), mask=inside)
    else:
        offset = (2 * heads + index) * dim
        is_head = index < kv_heads
        turned = _turned(
            start, k_weight, cos, sin, token, offset, is_head, eps, dim, lanes, rotated
        )
        at = (tl.load(places + token) * kv_heads + index[:, None]) * dim + channel[None, :]
        inside = is_head[:, None] & (channel < dim)[None, :]
        _store(keys, at, turned, inside)
        from_values = start + (offset + kv_heads * dim)[:, None] + channel[None, :]
        value = tl.load(from_values, mask=inside, other=0.0).to(tl.float32)
        _store(values, at, value, inside)
