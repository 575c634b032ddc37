"""The gated delta rule over the tokens of several sequences: two launches, states in place.

In chunks of 64 tokens, with the names of `gated_delta.chunked` and W S = T (beta exp(gamma) K) S:

    R = V - exp(gamma) K S,  V' = T (beta R),  O = exp(gamma) Q S + (Q K^T * D) V'
    S <- exp(gamma_C) S + K^T (exp(gamma_C - gamma) V')

The first kernel does what chunks can do side by side: T beta, and the masked Q K^T. The second
goes through the chunks of a sequence in order, with its columns of the state in registers. Lengths
of keys and queries and decays scale rows of products, so that q, k and v are multiplied as they
lie. Products are in their dtype; sums and the state are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from upcurve.engine import tuning
from upcurve.engine.kernels.gated_delta import CHUNK
from upcurve.engine.kernels.gated_delta_scan_kernels import FACTORS, advance, prepare
from upcurve.engine.kernels.sequences import Sequences
from upcurve.engine.platform import is_amd, multiprocessors


@dataclass(frozen=True, slots=True)
class ScanLaunch:
    """How both kernels are launched."""

    width: int
    """Columns of the state that a program of the second owns; a power of two, at least 16."""
    stages: int
    """Chunks that a program of the second has in flight or in use."""
    warps: int = 4
    prepare_warps: int = 4
    prepare_registers: int = 168
    """Of a thread at most, on NVIDIA GPUs: three programs of four warps share a multiprocessor."""

    @classmethod
    def of(cls, states: torch.Tensor, count: int, dtype: torch.dtype) -> ScanLaunch:
        """Choose for states [slots, heads, Dk, Dv], sequences and the dtype of products.

        Wide enough to read keys seldom, and so narrow that every multiprocessor has a program.
        """
        _, heads, _, value_dim = states.shape
        width = min(64, _power_of_two(value_dim))
        processors = multiprocessors(states.device)
        while width > 16 and 2 * count * heads * -(-value_dim // width) <= processors:
            width //= 2
        if dtype == torch.float32:
            # Exact products of two chunks take more shared memory than there is.
            warps = 4 if is_amd() else 8
            return cls(16, stages=1, warps=8, prepare_warps=warps, prepare_registers=255)
        if is_amd():
            return cls(width, stages=2)
        return cls(width, stages=3, warps=8 if width == 64 else 4)


def scan(
    qkv: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    a_log: torch.Tensor,
    dt_bias: torch.Tensor,
    states: torch.Tensor,
    *,
    key_heads: int,
    sequences: Sequences,
    launch: ScanLaunch | None = None,
) -> torch.Tensor:
    """Split, normalise, gate, and run the rule over the tokens of N sequences.

    What is launched follows from the shapes alone.

    Args:
        qkv: [T, 2 key_heads * Dk + heads * Dv] after convolution and SiLU, the last dimension
            contiguous.
        a: [T, heads], the last dimension contiguous.
        b: likewise.
        a_log: float32 [heads].
        dt_bias: float32 [heads].
        states: contiguous [slots_total, heads, Dk, Dv], float32 or bfloat16; rows of the slots
            change in place. A sequence without context starts from zeros.
        key_heads: value head j goes with key head j // (heads // key_heads).
        sequences: whose rows, one behind the other, are the T tokens.
        launch: chosen from the shapes where None.

    Returns:
        [T, heads, Dv] in qkv's dtype.
    """
    length = len(qkv)
    count = len(sequences.slots)
    _, heads, key_dim, value_dim = states.shape
    assert qkv.shape[1] == 2 * key_heads * key_dim + heads * value_dim
    assert qkv.stride(1) == a.stride(1) == b.stride(1) == 1
    assert states.is_contiguous()
    launch = launch or tuning.choose(
        ScanLaunch.of(states, count, qkv.dtype),
        "gated_delta_scan",
        qkv.device,
        rows=length,
        key_heads=key_heads,
        heads=heads,
        dtype=qkv.dtype,
    )
    places = length // CHUNK + count

    def new(*size: int, dtype: torch.dtype = qkv.dtype) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device=qkv.device)

    solved = new(places, heads, CHUNK, CHUNK)
    within = new(places, heads, CHUNK, CHUNK)
    factors = new(places, heads, FACTORS.value, CHUNK, dtype=torch.float32)
    out = new(length, heads, value_dim)
    exact = qkv.dtype == torch.float32 or is_amd()
    prepare[(places, heads)](
        *(qkv, a, b, a_log, dt_bias, sequences.starts, solved, within, factors, count),
        *(qkv.stride(0), a.stride(0), b.stride(0), key_dim**-0.5),
        key_heads=key_heads,
        heads=heads,
        key_dim=key_dim,
        chunk=CHUNK,
        keys=_power_of_two(key_dim),
        lanes=_power_of_two(count),
        precision="ieee" if exact else "tf32",
        num_warps=launch.prepare_warps,
        **({} if is_amd() else {"maxnreg": launch.prepare_registers}),
    )
    advance[(heads, -(-value_dim // launch.width), count)](
        *(qkv, sequences.slots, sequences.starts, sequences.contexts),
        *(solved, within, factors, states, out, qkv.stride(0)),
        key_heads=key_heads,
        heads=heads,
        key_dim=key_dim,
        value_dim=value_dim,
        chunk=CHUNK,
        keys=_power_of_two(key_dim),
        width=launch.width,
        num_warps=launch.warps,
        num_stages=launch.stages,
    )
    return out


def _power_of_two(size: int) -> int:
    return max(16, 1 << (size - 1).bit_length())
