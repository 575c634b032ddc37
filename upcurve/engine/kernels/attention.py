"""Attention over paged keys and values, grouped queries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

FP8_MAX = 448.0
"""Largest value of float8_e4m3fn; torch casts what is larger to NaN."""


def store(cache: torch.Tensor, rows: torch.Tensor, where: torch.Tensor) -> None:
    """Write rows [T, kv_heads, head_dim] to flat places int64 [T] (page * page_size + offset)."""
    flat = cache.view(-1, *cache.shape[2:])
    if cache.dtype == torch.float8_e4m3fn:
        rows = rows.clamp(-FP8_MAX, FP8_MAX).to(cache.dtype).view(torch.uint8)
        flat = flat.view(torch.uint8)
    flat.index_copy_(0, where, rows)


def attend_step(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    page_tables: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    """Attend with one query of each of B sequences of different lengths.

    Args:
        q: [B, heads, head_dim].
        keys: [pages, page_size, kv_heads, head_dim].
        values: as keys.
        page_tables: int [B, P], padded with any valid page.
        lengths: int [B]: tokens of each sequence, of which nothing behind is looked at.

    Returns:
        [B, heads, head_dim].
    """
    batch, heads, head_dim = q.shape
    kv_heads = keys.shape[2]
    k = keys[page_tables].flatten(1, 2).to(q.dtype)
    v = values[page_tables].flatten(1, 2).to(q.dtype)
    inside = torch.arange(k.shape[1], device=q.device) < lengths.unsqueeze(-1)
    # A mask alone hides what an earlier owner left, but not its NaN or infinity: 0 * NaN is NaN.
    beyond = ~inside[..., None, None]
    k, v = (each.masked_fill(beyond, 0).transpose(1, 2) for each in (k, v))
    # The queries that share a KV head are the rows of one product: nothing is repeated.
    grouped = q.view(batch, kv_heads, heads // kv_heads, head_dim)
    mask = inside[:, None, None]
    return F.scaled_dot_product_attention(grouped, k, v, attn_mask=mask).reshape(q.shape)


def attend_chunk(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    page_table: torch.Tensor,
    context: int,
) -> torch.Tensor:
    """Attend with T new queries of one sequence, causally, over its context and themselves.

    Args:
        q: [T, heads, head_dim].
        keys: [pages, page_size, kv_heads, head_dim], the new keys already stored.
        values: as keys.
        page_table: int [P].
        context: tokens before the first query.

    Returns:
        [T, heads, head_dim].
    """
    length, heads, _ = q.shape
    total = context + length
    pages = page_table[: -(-total // keys.shape[1])]
    k = keys[pages].flatten(0, 1)[:total].transpose(0, 1).to(q.dtype)
    v = values[pages].flatten(0, 1)[:total].transpose(0, 1).to(q.dtype)
    # Aligned at the end: the last query sees everything, the first all but those after it.
    mask = causal_lower_right(length, total) if length > 1 else None
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1).unsqueeze(0),
        k.unsqueeze(0),
        v.unsqueeze(0),
        attn_mask=mask,
        enable_gqa=heads > len(k),
    )
    return out.squeeze(0).transpose(0, 1)
