"""Gated attention over paged keys and values: from projected rows to what the output takes."""

from __future__ import annotations

import torch

from upcurve.engine.kernels import attention, library_attention, query_key, rms_norm
from upcurve.engine.kernels.output_gate import gate_rows
from upcurve.engine.kernels.paged_attention import attend_step_paged
from upcurve.engine.kernels.paged_prefill import attend_chunks_paged
from upcurve.engine.kernels.quantized import QuantizedRows
from upcurve.engine.kernels.rotary import rotate
from upcurve.engine.kernels.sequences import Sequences
from upcurve.engine.memory.caches import Caches, KeyValuePages
from upcurve.engine.model.plan import StepPlan
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.weights import GatedAttentionWeights
from upcurve.engine.switches import Switches


class Attention:
    """The attention of one model, as its switches want it."""

    def __init__(self, shapes: ModelShapes, switches: Switches, *, kernels: bool) -> None:
        """Choose between kernels and torch; `kernels` is whether the device runs them."""
        self._shapes = shapes
        self._fused_norm = switches.fused_norm
        self._prepared = switches.fused_query_key and kernels
        self._paged = switches.paged_attention and kernels

    def attend(
        self,
        projected: tuple[torch.Tensor, ...],
        weights: GatedAttentionWeights,
        layer: int,
        plan: StepPlan,
        caches: Caches,
        *,
        quantize: bool,
    ) -> tuple[torch.Tensor, QuantizedRows | None]:
        """Store keys and values of a step, attend with its queries, and gate.

        Args:
            projected: queries and gates [T, heads * 2 * head_dim] (of each head its query, then its
                gate), keys and values [T, kv_heads * head_dim].
            weights: of the layer.
            layer: its index.
            plan: of the step.
            caches: whose pages are written and read.
            quantize: give the rows in FP8 too.

        Returns:
            [T, heads * head_dim]; and in FP8.
        """
        cache = caches.attention[layer]
        prepare = self._prepare_fused if self._prepared else self._prepare_reference
        q = prepare(projected, weights, plan, cache)
        gate = projected[0].view(len(q), q.shape[1], -1)[..., q.shape[2] :]
        # One launch less where nothing but the gate is left to do.
        inside = self._paged and plan.sequences is None and not quantize
        parts = []
        if plan.singles:
            rows = q[: plan.singles]
            parts.append(
                self._attend_step(rows, cache, plan, caches.page_tables, gate if inside else None)
            )
        if plan.sequences is not None:
            rows = q[plan.singles :]
            parts.append(self._attend_chunks(rows, cache, plan.sequences, caches.page_tables))
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        if inside:
            return out.flatten(1), None
        if self._prepared:
            return gate_rows(out, gate, quantize=quantize)
        return (out * torch.sigmoid(gate)).flatten(1), None

    def _prepare_fused(
        self,
        projected: tuple[torch.Tensor, ...],
        weights: GatedAttentionWeights,
        plan: StepPlan,
        cache: KeyValuePages,
    ) -> torch.Tensor:
        return query_key.prepare(
            _whole(projected),
            *(weights.q_norm.weight, weights.k_norm.weight, self._shapes.rms_norm_eps),
            *(plan.cos, plan.sin, cache.keys, cache.values, plan.places),
        )

    def _prepare_reference(
        self,
        projected: tuple[torch.Tensor, ...],
        weights: GatedAttentionWeights,
        plan: StepPlan,
        cache: KeyValuePages,
    ) -> torch.Tensor:
        shapes = self._shapes
        heads, kv_heads, dim = (
            shapes.num_attention_heads,
            shapes.num_key_value_heads,
            shapes.head_dim,
        )
        q, k, v = projected
        q, k = q.view(-1, heads, 2 * dim)[..., :dim], k.view(-1, kv_heads, dim)
        eps, fused = shapes.rms_norm_eps, self._fused_norm
        q, k = (
            rms_norm.head_norm(rows, norm.weight, norm.one_plus, eps, fused)
            for rows, norm in ((q, weights.q_norm), (k, weights.k_norm))
        )
        q, k = rotate(q, plan.cos, plan.sin), rotate(k, plan.cos, plan.sin)
        attention.store(cache.keys, k, plan.places)
        attention.store(cache.values, v.view(-1, kv_heads, dim), plan.places)
        return q

    def _attend_step(
        self,
        q: torch.Tensor,
        cache: KeyValuePages,
        plan: StepPlan,
        page_tables: torch.Tensor,
        gate: torch.Tensor | None,
    ) -> torch.Tensor:
        keys, values = cache.keys, cache.values
        if self._paged:
            lengths = plan.lengths
            return attend_step_paged(q, keys, values, page_tables, plan.slots, lengths, gate=gate)
        pages = -(-plan.longest // keys.shape[1])
        tables = page_tables[plan.slots, :pages]
        return attention.attend_step(q, keys, values, tables, plan.lengths)

    def _attend_chunks(
        self,
        q: torch.Tensor,
        cache: KeyValuePages,
        sequences: Sequences,
        page_tables: torch.Tensor,
    ) -> torch.Tensor:
        keys, values, chunks = cache.keys, cache.values, sequences.chunks
        if self._paged:
            only = chunks[0]
            if len(chunks) == 1 and library_attention.takes(q, only.context):
                return library_attention.attend_from_start(q, keys, values, page_tables[only.slot])
            return attend_chunks_paged(q, keys, values, page_tables, sequences)
        parts, start = [], 0
        for chunk in chunks:
            rows = q[start : start + chunk.length]
            table = page_tables[chunk.slot]
            parts.append(attention.attend_chunk(rows, keys, values, table, chunk.context))
            start += chunk.length
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _whole(parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the rows of which parts are columns: where they lie side by side nothing is copied."""
    first, end = parts[0], parts[0].data_ptr()
    for part in parts:
        if part.data_ptr() != end or part.stride() != first.stride():
            return torch.cat(parts, dim=-1)
        end += part.shape[1] * part.element_size()
    width = sum(part.shape[1] for part in parts)
    return first.as_strided((len(first), width), first.stride())
