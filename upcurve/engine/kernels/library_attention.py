"""Attention of a long prompt from its first token on, by cuDNN: the fastest on Hopper."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from upcurve.engine.platform import compute_capability

LEAST_TOKENS = 1024
"""Shorter ones are not worth another kernel."""
GRAIN = 512
"""Lengths are rounded up to a multiple: a plan is built, in about 70 ms, for every length."""


def takes(q: torch.Tensor, context: int) -> bool:
    """Return whether this is the way to compute it: q [T, heads, D], `context` tokens before."""
    if context or len(q) < LEAST_TOKENS or q.dtype != torch.bfloat16:
        return False
    return compute_capability(q.device) == (9, 0) and torch.backends.cudnn.is_available()


def attend_from_start(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, page_table: torch.Tensor
) -> torch.Tensor:
    """Attend with all T queries of a sequence, causally.

    Args:
        q: [T, heads, D].
        keys: [pages, page_size, kv_heads, D], those of the sequence stored.
        values: likewise.
        page_table: int32 [P] of the sequence.

    Returns:
        [T, heads, D], D contiguous.
    """
    length, heads, _ = q.shape
    pages = page_table[: -(-length // keys.shape[1])]
    more = -length % GRAIN
    keys, values = (cache[pages].flatten(0, 1).to(q.dtype) for cache in (keys, values))
    q, keys, values = (
        F.pad(rows[:length], (0, 0, 0, 0, 0, more)).transpose(0, 1).unsqueeze(0)
        for rows in (q, keys, values)
    )
    grouped = heads > keys.shape[1]
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        out = F.scaled_dot_product_attention(q, keys, values, is_causal=True, enable_gqa=grouped)
    return out.squeeze(0).transpose(0, 1)[:length]
