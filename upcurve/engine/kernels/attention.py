"""Attention over paged keys and values, grouped queries."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def store(cache: torch.Tensor, rows: torch.Tensor, where: torch.Tensor) -> None:
    """Write rows [T, kv_heads, head_dim] to flat places int64 [T] (page * page_size + offset)."""
    cache.view(-1, *cache.shape[2:]).index_copy_(0, where, rows)


def attend_step(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    page_tables: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Attend with one query of each of B sequences of different lengths.

    Args:
        q: [B, heads, head_dim].
        keys: [pages, page_size, kv_heads, head_dim].
        values: as keys.
        page_tables: int64 [B, P], padded with any valid page.
        mask: additive [B, 1, 1, P * page_size]: 0 where a token is, -inf behind it.

    Returns:
        [B, heads, head_dim].
    """
    batch, heads, head_dim = q.shape
    kv_heads = keys.shape[2]
    k = keys[page_tables].flatten(1, 2).transpose(1, 2)
    v = values[page_tables].flatten(1, 2).transpose(1, 2)
    # The queries that share a KV head are the rows of one product: nothing is repeated.
    grouped = q.view(batch, kv_heads, heads // kv_heads, head_dim)
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
        page_table: int64 [P].
        context: tokens before the first query.

    Returns:
        [T, heads, head_dim].
    """
    length, heads, _ = q.shape
    total = context + length
    pages = page_table[: -(-total // keys.shape[1])]
    k = keys[pages].flatten(0, 1)[:total].transpose(0, 1)
    v = values[pages].flatten(0, 1)[:total].transpose(0, 1)
    share = heads // len(k)
    if share > 1:
        k, v = k.repeat_interleave(share, 0), v.repeat_interleave(share, 0)
    mask = None
    if context and length > 1:
        mask = torch.ones(length, total, dtype=torch.bool, device=q.device).tril(context)
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1).unsqueeze(0),
        k.unsqueeze(0),
        v.unsqueeze(0),
        attn_mask=mask,
        is_causal=mask is None and length > 1,
    )
    return out.squeeze(0).transpose(0, 1)
