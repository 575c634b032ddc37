"""The mixer of a Gated DeltaNet layer but its projections, on the states that it moves."""

from __future__ import annotations

import torch

from upcurve.engine.kernels import causal_conv, gated_delta, rms_norm
from upcurve.engine.kernels.causal_conv_kernels import convolve_sequences_in_place
from upcurve.engine.kernels.gated_delta_decode import decode_in_place
from upcurve.engine.kernels.gated_delta_scan import scan
from upcurve.engine.kernels.quantized import GatedRows, QuantizedRows
from upcurve.engine.kernels.sequences import Sequences
from upcurve.engine.memory.caches import RecurrentState
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.weights import GatedDeltaWeights


class DeltaRule:
    """From projected rows to what the output projection, or the gated norm before it, takes.

    `qkv` is [rows, conv_dim] before the convolution, `z` is [rows, value_dim], `a` and `b` are
    [rows, value_heads].
    """

    def __init__(self, shapes: ModelShapes, *, fused: bool) -> None:
        """Choose between kernels in place and torch, step by step."""
        self._shapes = shapes
        self._fused = fused

    def step(
        self,
        qkv: torch.Tensor,
        z: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        weights: GatedDeltaWeights,
        state: RecurrentState,
        slots: torch.Tensor,
        lengths: torch.Tensor,
        *,
        gated: bool,
        quantize: bool,
        into: GatedRows | None = None,
    ) -> tuple[torch.Tensor, QuantizedRows | None]:
        """Compute one token of each of B sequences; their states, by slots int64 [B], move on.

        Args:
            qkv: of each sequence, as z, a and b.
            z: the output gate.
            a: the decay.
            b: the strength of the correction.
            weights: of the layer.
            state: of the layer.
            slots: int64 [B].
            lengths: int32 [B]: tokens of each sequence with this one.
            gated: norm and output gate in the same launch.
            quantize: give the rows in FP8 too, where that costs no launch.
            into: where a kernel writes both; new where None.

        Returns:
            [B, value_dim] behind norm and gate; and in FP8.
        """
        shapes = self._shapes
        if self._fused:
            rows, quantized = decode_in_place(
                *(qkv, z, a, b),
                convolution=weights.convolution,
                a_log=weights.a_log,
                dt_bias=weights.dt_bias,
                norm=weights.norm if gated else None,
                rings=state.convolution,
                states=state.recurrent,
                slots=slots,
                lengths=lengths,
                key_heads=shapes.linear_num_key_heads,
                eps=shapes.rms_norm_eps,
                quantize=quantize,
                into=into,
            )
            if gated:
                return rows, quantized
            out = rows.view(len(rows), shapes.linear_num_value_heads, -1)
        else:
            convolved = causal_conv.convolve_step(
                qkv, state.convolution, slots, lengths, weights.convolution
            )
            states = state.recurrent.index_select(0, slots).float()
            # A sequence that begins has seen nothing, whatever its slot holds.
            states.masked_fill_((lengths == 1).view(-1, 1, 1, 1), 0)
            q, k, v, g, beta = self._inputs(convolved, a, b, weights)
            out = gated_delta.step(q, k, v, g, beta, states)
            state.recurrent.index_copy_(0, slots, states.to(state.recurrent.dtype))
        norm = rms_norm.gated_norm_fused if gated else rms_norm.gated_norm_reference
        return norm(out, z.view(out.shape), weights.norm, shapes.rms_norm_eps).flatten(1), None

    def chunks(
        self,
        qkv: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        weights: GatedDeltaWeights,
        state: RecurrentState,
        sequences: Sequences,
    ) -> torch.Tensor:
        """Compute the next tokens of some sequences, whose states move on.

        Returns:
            [T, value_heads, value_head_dim] before norm and gate.
        """
        if self._fused:
            qkv = convolve_sequences_in_place(
                qkv, state.convolution, sequences, weights.convolution
            )
            return scan(
                *(qkv, a, b, weights.a_log, weights.dt_bias, state.recurrent),
                key_heads=self._shapes.linear_num_key_heads,
                sequences=sequences,
            )
        parts, start = [], 0
        for chunk in sequences.chunks:
            rows = slice(start, start + chunk.length)
            start = rows.stop
            convolved = causal_conv.convolve_sequence(
                qkv[rows], state.convolution[chunk.slot], chunk.context, weights.convolution
            )
            q, k, v, g, beta = self._inputs(convolved, a[rows], b[rows], weights)
            before = state.recurrent[chunk.slot].float()
            out, after = gated_delta.chunked(q, k, v, g, beta, before)
            state.recurrent[chunk.slot] = after
            parts.append(out)
        return torch.cat(parts)  # contiguous, where there is only one too

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
