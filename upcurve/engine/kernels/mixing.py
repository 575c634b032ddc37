"""The weighted sum of the chosen experts' results, gathered from wherever they lie."""

from __future__ import annotations

import torch

from upcurve.engine.platform import tl, triton

BLOCK = 1024
"""Channels of a program."""


def mix(results: torch.Tensor, where: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return sum over k of weights[t, k] * results[where[t, k]], in float32 and in one launch.

    The order of the sum is that of k, so that it is the same on every run.

    Args:
        results: [R, H], contiguous.
        where: int64 [T, K], contiguous: row of each choice's result.
        weights: float32 [T, K], contiguous.

    Returns:
        [T, H] in the dtype of results.
    """
    tokens, choices = where.shape
    width = results.shape[1]
    assert results.is_contiguous()
    assert where.is_contiguous()
    assert weights.is_contiguous()
    out = torch.empty(tokens, width, dtype=results.dtype, device=results.device)
    _mix[(tokens, -(-width // BLOCK))](
        results, where, weights, out, width, choices=choices, block=BLOCK
    )
    return out


def mix_reference(
    results: torch.Tensor, where: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Compute the same in torch."""
    chosen = results.index_select(0, where.reshape(-1)).view(*where.shape, -1)
    mixed = torch.bmm(weights.unsqueeze(1), chosen.to(weights.dtype))
    return mixed.squeeze(1).to(results.dtype)


@triton.jit  # type: ignore[untyped-decorator]
def _mix(results, where, weights, out, width, choices: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    token = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * block + tl.arange(0, block)
    inside = channel < width
    total = tl.zeros((block,), dtype=tl.float32)
    for choice in tl.static_range(choices):
        row = tl.load(where + token * choices + choice)
        weight = tl.load(weights + token * choices + choice)
        values = tl.load(results + row * width + channel, mask=inside, other=0.0)
        total += weight * values.to(tl.float32)
    tl.store(out + token * width + channel, total.to(out.dtype.element_ty), mask=inside)
