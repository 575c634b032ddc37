"""The convolution and the delta rule of a Gated DeltaNet layer, on the states that they move."""

from __future__ import annotations

import torch

from upcurve.engine.kernels import causal_conv, gated_delta
from upcurve.engine.kernels.causal_conv_kernels import (
    convolve_sequence_in_place,
    convolve_step_in_place,
)
from upcurve.engine.kernels.gated_delta_scan import scan
from upcurve.engine.kernels.gated_delta_step import step_in_place
from upcurve.engine.memory.caches import RecurrentState
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.weights import GatedDeltaWeights


class DeltaRule:
    """From projected rows to what the gated norm takes.

    `qkv` is [rows, conv_dim] before the convolution, `a` and `b` are [rows, value_heads]; results
    are float32 [rows, value_heads, value_head_dim].
    """

    def __init__(self, shapes: ModelShapes, *, fused: bool) -> None:
        """Choose between kernels in place and torch, step by step."""
        self._shapes = shapes
        self._fused = fused

    def step(
        self,
        qkv: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        weights: GatedDeltaWeights,
        state: RecurrentState,
        slots: torch.Tensor,
    ) -> torch.Tensor:
        """Compute one token of each of B sequences; their states, by slots int64 [B], move on."""
        if self._fused:
            qkv = convolve_step_in_place(qkv, state.convolution, slots, weights.convolution)
            return step_in_place(
                *(qkv, a, b, weights.a_log, weights.dt_bias, state.recurrent, slots),
                key_heads=self._shapes.linear_num_key_heads,
            )
        inputs = state.convolution.index_select(0, slots)
        qkv, inputs = causal_conv.convolve_step(qkv, inputs, weights.convolution)
        state.convolution.index_copy_(0, slots, inputs)
        states = state.recurrent.index_select(0, slots).float()
        q, k, v, g, beta = self._inputs(qkv, a, b, weights)
        out = gated_delta.step(q, k, v, g, beta, states)
        state.recurrent.index_copy_(0, slots, states.to(state.recurrent.dtype))
        return out

    def chunk(
        self,
        qkv: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        weights: GatedDeltaWeights,
        state: RecurrentState,
        slot: int,
    ) -> torch.Tensor:
        """Compute the next T tokens of the sequence in a slot; its state moves on."""
        if self._fused:
            qkv = convolve_sequence_in_place(qkv, state.convolution[slot], weights.convolution)
            return scan(
                *(qkv, a, b, weights.a_log, weights.dt_bias, state.recurrent[slot]),
                key_heads=self._shapes.linear_num_key_heads,
            )
        qkv, state.convolution[slot] = causal_conv.convolve_sequence(
            qkv, state.convolution[slot], weights.convolution
        )
        q, k, v, g, beta = self._inputs(qkv, a, b, weights)
        before = state.recurrent[slot].float()
        out, state.recurrent[slot] = gated_delta.chunked(q, k, v, g, beta, before)
        return out

    def _inputs(
        self, qkv: torch.Tensor, a: torch.Tensor, b: torch.Tensor, weights: GatedDeltaWeights
    ) -> tuple[torch.Tensor, ...]:
        """Return what the delta rule takes of T tokens: q, k, v [T, heads, D], g, beta."""
        shapes, count = self._shapes, len(qkv)
        key_heads, value_heads = shapes.linear_num_key_heads, shapes.linear_num_value_heads
        q, k, v = qkv.split([shapes.key_dim, shapes.key_dim, shapes.value_dim], dim=-1)
        q = gated_delta.unit(q.view(count, key_heads, -1)) * shapes.linear_key_head_dim**-0.5
        k = gated_delta.unit(k.view(count, key_heads, -1))
        share = value_heads // key_heads
        if share > 1:
            q, k = q.repeat_interleave(share, 1), k.repeat_interleave(share, 1)
        v = v.view(count, value_heads, -1).float()
        return q, k, v, *gated_delta.gates(a, b, weights.a_log, weights.dt_bias)
