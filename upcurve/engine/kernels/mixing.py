"""The weighted sum of the chosen experts' results."""

from __future__ import annotations

import torch

from upcurve.engine.platform import runs_kernels, tl, triton

BLOCK = 1024
"""Channels of a program."""


def mix(results: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return sum over k of weights[t, k] * results[t, k] in float32; on a GPU in one launch.

    There the order of the sum is that of k, so that it is the same on every run; and what has the
    weight 0 is not read: nobody computed it where its expert is another rank's.

    Args:
        results: [T, K, H], contiguous.
        weights: float32 [T, K], contiguous.

    Returns:
        [T, H] in the dtype of results.
    """
    if not runs_kernels(results.device):
        mixed = torch.bmm(weights.unsqueeze(1), results.to(weights.dtype))
        return mixed.squeeze(1).to(results.dtype)
    return mix_in_one(results, weights)


def mix_in_one(results: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Compute `mix` as a kernel."""
    tokens, choices, width = results.shape
    assert results.is_contiguous()
    assert weights.is_contiguous()
    out = torch.empty(tokens, width, dtype=results.dtype, device=results.device)
    _mix[(tokens, -(-width // BLOCK))](results, weights, out, width, choices=choices, block=BLOCK)
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _mix(results, weights, out, width, choices: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    token = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * block + tl.arange(0, block)
    inside = channel < width
    total = tl.zeros((block,), dtype=tl.float32)
    for choice in tl.static_range(choices):
        weight = tl.load(weights + token * choices + choice)
        at = results + (token * choices + choice) * width + channel
        counts = weight.to(tl.int32, bitcast=True) != 0
        total += weight * tl.load(at, mask=inside & counts, other=0.0).to(tl.float32)
    tl.store(out + token * width + channel, total.to(out.dtype.element_ty), mask=inside)
