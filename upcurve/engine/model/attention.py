"""Gated attention over paged keys and values: from projected rows to what the output takes."""

from __future__ import annotations

import torch

from upcurve.engine.kernels import attention, rms_norm
from upcurve.engine.kernels.paged_attention import attend_step_paged
from upcurve.engine.kernels.quantized import QuantizedRows
from upcurve.engine.kernels.rotary import rotate
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
        self._paged = switches.paged_attention and kernels

    def attend(
        self,
        projected: tuple[torch.Tensor, ...],
        weights: GatedAttentionWeights,
        layer: int,
        plan: StepPlan,
        caches: Caches,
    ) -> tuple[torch.Tensor, QuantizedRows | None]:
        """Store keys and values of a step, attend with its queries, and gate.

        Args:
            projected: queries and gates [T, heads * 2 * head_dim] (of each head its query, then its
                gate), keys and values [T, kv_heads * head_dim].
            weights: of the layer.
            layer: its index.
            plan: of the step.
            caches: whose pages are written and read.

        Returns:
            [T, heads * head_dim]; and in FP8 where that came with it.
        """
        shapes = self._shapes
        heads, kv_heads, dim = (
            shapes.num_attention_heads,
            shapes.num_key_value_heads,
            shapes.head_dim,
        )
        q, k, v = projected
        q, gate = q.view(-1, heads, 2 * dim).chunk(2, dim=-1)
        eps, fused = shapes.rms_norm_eps, self._fused_norm
        q = rms_norm.head_norm(q, weights.q_norm.weight, weights.q_norm.one_plus, eps, fused)
        k = rms_norm.head_norm(
            k.view(-1, kv_heads, dim), weights.k_norm.weight, weights.k_norm.one_plus, eps, fused
        )
        q, k = rotate(q, plan.cos, plan.sin), rotate(k, plan.cos, plan.sin)
        cache = caches.attention[layer]
        attention.store(cache.keys, k, plan.places)
        attention.store(cache.values, v.view(-1, kv_heads, dim), plan.places)
        parts = []
        if plan.singles:
            parts.append(self._attend_step(q[: plan.singles], cache, plan, caches.page_tables))
        parts += [
            attention.attend_chunk(
                q[chunk.start : chunk.start + chunk.length],
                cache.keys,
                cache.values,
                caches.page_tables[chunk.slot],
                chunk.context,
            )
            for chunk in plan.chunks
        ]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        return (out * torch.sigmoid(gate)).reshape(len(q), heads * dim), None

    def _attend_step(
        self, q: torch.Tensor, cache: KeyValuePages, plan: StepPlan, page_tables: torch.Tensor
    ) -> torch.Tensor:
        keys, values = cache.keys, cache.values
        if self._paged:
            return attend_step_paged(q, keys, values, page_tables, plan.slots, plan.lengths)
        pages = -(-plan.longest // keys.shape[1])
        tables = page_tables[plan.slots, :pages]
        return attention.attend_step(q, keys, values, tables, plan.lengths)
