"""The forward pass of Qwen3.5 MoE over a flat batch, and how a model is loaded."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from upcurve.engine.kernels import attention, experts, rms_norm, routing
from upcurve.engine.kernels.paged_attention import attend_step_paged
from upcurve.engine.kernels.rotary import rotate
from upcurve.engine.memory.caches import Caches, KeyValuePages
from upcurve.engine.model.batch import ForwardBatch
from upcurve.engine.model.checkpoint import fill_dummy
from upcurve.engine.model.delta_rule import DeltaRule
from upcurve.engine.model.formats import LoadFormat, QuantizationFormat
from upcurve.engine.model.loader import load_weights
from upcurve.engine.model.matrix import Matrix
from upcurve.engine.model.plan import StepPlan, plan_step
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.weights import (
    ExpertWeights,
    GatedAttentionWeights,
    GatedDeltaWeights,
    ModelWeights,
    Norm,
)
from upcurve.engine.platform import runs_kernels
from upcurve.engine.switches import Switches


def load_model(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    switches: Switches,
    load_format: LoadFormat = "auto",
    seed: int = 0,
    quantization: QuantizationFormat = "none",
) -> Model:
    """Load a checkpoint folder.

    Args:
        folder: with config.json and, but for dummy weights, safetensors files.
        device: of the parameters.
        dtype: of plain matrices and of activations.
        switches: which optimisations are on.
        load_format: "dummy" needs the config.json only and draws weights from `seed`.
        seed: of dummy weights.
        quantization: "none": as the checkpoint is; "fp8": in FP8, quantised while it is loaded
            where it is not FP8 already.

    Raises:
        EngineInputError: the folder is not a complete checkpoint of a supported model.
    """
    shapes = ModelShapes.from_folder(folder)
    quantized = quantization == "fp8" or shapes.quantization is not None
    weights = ModelWeights.empty(shapes, device, dtype, quantized=quantized)
    if load_format == "dummy":
        fill_dummy(weights, seed)
    else:
        load_weights(folder, weights, shapes.quantization)
    return Model(shapes, weights, switches, dtype)


class Model:
    """Shapes, parameters and switches: everything of the forward pass but the batch's memory."""

    def __init__(
        self,
        shapes: ModelShapes,
        weights: ModelWeights,
        switches: Switches,
        dtype: torch.dtype,
    ) -> None:
        self.shapes = shapes
        self.weights = weights
        self.switches = switches
        self.dtype = dtype
        fusable = len(weights.layers[0].experts.gate_up.weight) > shapes.num_experts
        self.shared_expert_fused = switches.shared_expert_fusion and fusable
        """False too where the shared expert has another size than the routed ones."""
        self._kernels = runs_kernels(weights.embedding.device)
        fused = switches.fused_recurrence and self._kernels
        self._delta_rule = DeltaRule(shapes, fused=fused)

    @property
    def capturable(self) -> bool:
        """Whether a decode step is wanted as a graph, and depends on no number of the host."""
        switches = self.switches
        # A loop over experts asks the device which have rows; so do grouped products in float32.
        grouped = switches.grouped_experts and self.dtype == torch.bfloat16
        return switches.cuda_graphs and self._paged and grouped

    @property
    def _paged(self) -> bool:
        return self.switches.paged_attention and self._kernels

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, caches: Caches) -> torch.Tensor:
        """Run one step: write the tokens into the caches, return float32 logits [R, vocab]."""
        plan = plan_step(batch, self.shapes, caches)
        residual = F.embedding(batch.token_ids, self.weights.embedding)
        update: torch.Tensor | None = None
        for index, layer in enumerate(self.weights.layers):
            residual, x = self._add_norm(residual, update, layer.input_norm)
            if isinstance(layer.mixer, GatedAttentionWeights):
                update = self._gated_attention(x, layer.mixer, index, plan, caches)
            else:
                update = self._gated_delta(x, layer.mixer, index, plan, caches)
            residual, x = self._add_norm(residual, update, layer.post_norm)
            update = self._experts(x, layer.experts)
        if batch.logit_rows is not None:
            residual = residual[batch.logit_rows]
            update = None if update is None else update[batch.logit_rows]
        _, x = self._add_norm(residual, update, self.weights.norm)
        return F.linear(x, self.weights.head).float()

    def _add_norm(
        self, residual: torch.Tensor, update: torch.Tensor | None, norm: Norm
    ) -> tuple[torch.Tensor, torch.Tensor]:
        eps = self.shapes.rms_norm_eps
        if self.switches.fused_norm:
            return rms_norm.add_norm_fused(residual, update, norm.one_plus, eps)
        return rms_norm.add_norm_reference(residual, update, norm.weight, eps)

    def _project(self, x: torch.Tensor, *projections: Matrix) -> tuple[torch.Tensor, ...]:
        at_once = self.switches.fused_projections
        return tuple(
            part
            for projection in projections
            for part in projection.multiply_parts(x, at_once=at_once)
        )

    def _gated_attention(
        self,
        x: torch.Tensor,
        weights: GatedAttentionWeights,
        layer: int,
        plan: StepPlan,
        caches: Caches,
    ) -> torch.Tensor:
        shapes = self.shapes
        heads, kv_heads, dim = (
            shapes.num_attention_heads,
            shapes.num_key_value_heads,
            shapes.head_dim,
        )
        q, k, v = self._project(x, weights.projection)
        q, gate = q.view(-1, heads, 2 * dim).chunk(2, dim=-1)
        eps, fused = shapes.rms_norm_eps, self.switches.fused_norm
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
        out = _joined(parts) * torch.sigmoid(gate)
        return weights.output.multiply(out.reshape(len(x), heads * dim))

    def _attend_step(
        self, q: torch.Tensor, cache: KeyValuePages, plan: StepPlan, page_tables: torch.Tensor
    ) -> torch.Tensor:
        keys, values = cache.keys, cache.values
        if self._paged:
            return attend_step_paged(q, keys, values, page_tables, plan.slots, plan.lengths)
        pages = -(-plan.longest // keys.shape[1])
        tables = page_tables[plan.slots, :pages]
        return attention.attend_step(q, keys, values, tables, plan.lengths)

    def _gated_delta(
        self,
        x: torch.Tensor,
        weights: GatedDeltaWeights,
        layer: int,
        plan: StepPlan,
        caches: Caches,
    ) -> torch.Tensor:
        shapes, state, rule = self.shapes, caches.linear[layer], self._delta_rule
        value_heads = shapes.linear_num_value_heads
        qkv, z, b, a = self._project(x, *weights.projections)
        parts = []
        if plan.singles:
            rows = slice(plan.singles)
            parts.append(rule.step(qkv[rows], a[rows], b[rows], weights, state, plan.slots))
        for chunk in plan.chunks:
            rows = slice(chunk.start, chunk.start + chunk.length)
            parts.append(rule.chunk(qkv[rows], a[rows], b[rows], weights, state, chunk.slot))
        norm = (
            rms_norm.gated_norm_fused if self.switches.fused_norm else rms_norm.gated_norm_reference
        )
        y = norm(_joined(parts), z.view(len(x), value_heads, -1), weights.norm, shapes.rms_norm_eps)
        return weights.output.multiply(y.reshape(len(x), shapes.value_dim))

    def _experts(self, x: torch.Tensor, weights: ExpertWeights) -> torch.Tensor:
        count, top_k = self.shapes.num_experts, self.shapes.num_experts_per_tok
        if self.switches.fused_topk:
            logits, shared_logit = F.linear(x, weights.router).split([count, 1], dim=-1)
            mixing, ids = routing.route_fused(logits, top_k)
        else:
            shared_logit = F.linear(x, weights.router[count:])
            mixing, ids = routing.route_reference(F.linear(x, weights.router[:count]), top_k)
        run = (
            experts.experts_grouped if self.switches.grouped_experts else experts.experts_reference
        )
        if self.shared_expert_fused:
            mixing, ids = routing.append_shared(mixing, ids, shared_logit.squeeze(-1), count)
            return run(x, ids, mixing, *_tensors(weights.gate_up, weights.down))
        routed = run(x, ids, mixing, *_tensors(weights.gate_up[:count], weights.down[:count]))
        shared = experts.dense(x, *_tensors(weights.shared_gate_up, weights.shared_down))
        return routed + torch.sigmoid(shared_logit) * shared


def _tensors(
    gate_up: Matrix, down: Matrix
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    return gate_up.weight, down.weight, gate_up.scale, down.scale


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
