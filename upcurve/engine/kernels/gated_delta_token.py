"""What a kernel computes of one token before the delta rule: its convolution and its decay."""

from __future__ import annotations

from upcurve.engine.platform import tl, triton


@triton.jit  # type: ignore[untyped-decorator]
def softplus(x: tl.tensor) -> tl.tensor:
    """Return log(1 + exp(x)) in float32, small values to their last digits."""
    # exp(x) would overflow where the logarithm of 1 + exp(x) is x anyway.
    grown = tl.exp(tl.minimum(x, 20.0))
    # 1 + exp(x) rounds off what a memory of many thousand tokens decays by: a series does not.
    small = grown * (1.0 - grown * (0.5 - grown * (1.0 / 3.0)))
    return tl.where(x > 20.0, x, tl.where(grown < 0.01, small, tl.log(1.0 + grown)))


@triton.jit  # type: ignore[untyped-decorator]
def weighted(
    row: tl.tensor,
    ring: tl.tensor,
    weight: tl.tensor,
    channel: tl.tensor,
    inside: tl.tensor,
    position: tl.tensor,
    kernel: tl.constexpr,
    taps: tl.constexpr,
    channels: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Return what a convolution sums, [taps, some channels], and the token's inputs within it."""
    back = tl.arange(0, taps)[:, None]
    before = position - back
    channel, inside = channel[None, :], inside[None, :]
    new = tl.load(row + 0 * back + channel, mask=inside & (back == 0), other=0.0)
    at = ring + ((before + taps * kernel) % kernel) * channels + channel
    is_old = inside & (back > 0) & (back < kernel) & (before >= 0)
    old = tl.load(at, mask=is_old, other=0.0)
    at = weight + (kernel - 1 - back) * channels + channel
    factor = tl.load(at, mask=inside & (back < kernel), other=0.0)
    return (new.to(tl.float32) + old.to(tl.float32)) * factor.to(tl.float32), new


@triton.jit  # type: ignore[untyped-decorator]
def summed(weighted: tl.tensor) -> tl.tensor:
    """Return silu(convolution)."""
    # A sum, unlike a loop over taps, is not repeated by every thread that needs its result.
    total = tl.sum(weighted, 0)
    return total * tl.sigmoid(total)


@triton.jit  # type: ignore[untyped-decorator]
def keep(
    at: tl.tensor, new: tl.tensor, channel: tl.tensor, inside: tl.tensor, taps: tl.constexpr
) -> None:
    """Store a token's inputs."""
    back = tl.arange(0, taps)[:, None]
    mask = inside[None, :] & (back == 0)
    tl.store(at + 0 * back + channel[None, :], new, mask=mask)
