"""The forward pass of Qwen3.5 MoE over a flat batch, and how a model is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from upcurve.engine.kernels import experts, matrix_vector, rms_norm
from upcurve.engine.kernels.block_scaled import BLOCK
from upcurve.engine.kernels.peers import Peers
from upcurve.engine.kernels.quantized import GatedRows, QuantizedRows
from upcurve.engine.kernels.rms_norm import Normed
from upcurve.engine.memory.caches import Caches
from upcurve.engine.model.attention import Attention
from upcurve.engine.model.batch import ForwardBatch
from upcurve.engine.model.checkpoint import fill_dummy
from upcurve.engine.model.delta_rule import DeltaRule
from upcurve.engine.model.expert_layer import ExpertLayer
from upcurve.engine.model.formats import LoadFormat, QuantizationFormat
from upcurve.engine.model.joining import Joining, reaches, sums_in_memory
from upcurve.engine.model.layout_check import check_layout
from upcurve.engine.model.loader import load_weights
from upcurve.engine.model.matrix import Matrix
from upcurve.engine.model.plan import StepPlan, plan_step
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.update import Update
from upcurve.engine.model.weights import (
    ExpertWeights,
    GatedAttentionWeights,
    GatedDeltaWeights,
    ModelWeights,
    Norm,
)
from upcurve.engine.parallel.boxes import open_boxes
from upcurve.engine.parallel.ranks import ALONE, Ranks
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
    ranks: Ranks = ALONE,
) -> Model:
    """Load a checkpoint folder, or what one rank has of it.

    Args:
        folder: with config.json and, but for dummy weights, safetensors files.
        device: of the parameters.
        dtype: of plain matrices and of activations.
        switches: which optimisations are on.
        load_format: "dummy" needs the config.json only and draws weights from `seed`.
        seed: of dummy weights.
        quantization: "none": as the checkpoint is; "fp8": in FP8, quantised while it is loaded
            where it is not FP8 already.
        ranks: among which this one is.

    Raises:
        EngineInputError: the folder is not a complete checkpoint of a supported model, or the
            model cannot be spread so.
    """
    shapes = ModelShapes.from_folder(folder)
    quantized = quantization == "fp8" or shapes.quantization is not None
    check_layout(shapes, ranks.layout, quantized=quantized)
    weights = ModelWeights.empty(shapes, device, dtype, quantized=quantized, share=ranks.share)
    if load_format == "dummy":
        fill_dummy(weights, seed)
    else:
        load_weights(folder, weights, shapes.quantization)
    peers = None
    if reaches(ranks.heads, switches, device):
        peers = open_boxes(ranks.heads, shapes.hidden_size, dtype, device)
    return Model(weights.sharding.shapes, weights, switches, dtype, ranks, peers)


class Model:
    """Shapes, parameters and switches: everything of the forward pass but the batch's memory.

    Where several ranks compute together, each has its heads and experts of every layer: what the
    mixer and the experts of a layer give are summed over the ranks, and all else is done by each.
    """

    def __init__(
        self,
        shapes: ModelShapes,
        weights: ModelWeights,
        switches: Switches,
        dtype: torch.dtype,
        ranks: Ranks = ALONE,
        peers: Peers | None = None,
    ) -> None:
        self.shapes = shapes
        """Heads and widths are this rank's, vocabulary and experts the whole model's."""
        self.ranks = ranks
        self.weights = weights
        self.switches = switches
        self.dtype = dtype
        self.peers = peers if sums_in_memory(switches) else None
        """Memory of the ranks that share heads, through which small sums go."""
        self._kernels = runs_kernels(weights.embedding.device)
        self._joining = Joining(ranks.heads, weights, switches, self.peers)
        self._experts = ExpertLayer(shapes, weights, switches, ranks.share.shared_scale)
        self._attention = Attention(shapes, switches, kernels=self._kernels)
        fused = switches.fused_recurrence and self._kernels
        self._delta_rule = DeltaRule(shapes, fused=fused)
        # In FP8 a head has one scale.
        self._joins = fused and switches.fused_norm and shapes.linear_value_head_dim == BLOCK
        """Decodes and prompts of a step write their gated rows side by side."""

    def first_layers(self, count: int) -> Model:
        """Return the same without the layers behind so many."""
        weights = replace(self.weights, layers=self.weights.layers[:count])
        return Model(self.shapes, weights, self.switches, self.dtype, self.ranks, self.peers)

    @property
    def shared_expert_fused(self) -> bool:
        """Whether the shared expert is one of the grouped ones."""
        return self._experts.shared_fused

    @property
    def capturable(self) -> bool:
        """Whether a decode step is wanted as a graph, and depends on no number of the host."""
        switches = self.switches
        paged = switches.paged_attention and self._kernels
        # A loop over experts asks the device which have rows.
        captured = switches.cuda_graphs and self.ranks.capturable
        return captured and paged and switches.grouped_experts

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, caches: Caches) -> torch.Tensor:
        """Run one step: write the tokens into the caches, return float32 logits [R, vocab]."""
        plan = plan_step(batch, self.shapes, caches)
        residual, update = self._joining.embed(batch.token_ids)
        for index, layer in enumerate(self.weights.layers):
            x = self._add_norm(residual, update, layer.input_norm, quantize=len(residual) > 1)
            residual = x.residual
            if isinstance(layer.mixer, GatedAttentionWeights):
                update = self._gated_attention(x, layer.mixer, index, plan, caches)
            else:
                update = self._gated_delta(x, layer.mixer, index, plan, caches)
            if batch.written is not None:
                batch.written(index)
            slots = len(residual) * (self.shapes.num_experts_per_tok + 1)
            # What is gathered from replicas is quantised where it arrives.
            quantize = slots > experts.FEW_SLOTS and self.ranks.replicas.size == 1
            x = self._add_norm(residual, update, layer.post_norm, quantize=quantize)
            residual = x.residual
            update = self._all_experts(x, layer.experts, batch.gathered_rows)
        if batch.logit_rows is not None:
            residual = residual[batch.logit_rows]
            update = update.rows(batch.logit_rows)
        x = self._add_norm(residual, update, self.weights.norm, quantize=False)
        return self._joining.all_columns(matrix_vector.linear(x.rows, self.weights.head)).float()

    def _add_norm(
        self, residual: torch.Tensor, update: Update, norm: Norm, *, quantize: bool
    ) -> Normed:
        eps = self.shapes.rms_norm_eps
        if self.switches.fused_norm:
            return rms_norm.add_norm(
                *(residual, update.parts, norm.weight, eps),
                mixing=update.mixing,
                quantize=quantize and self._kernels and self.weights.quantized,
                peers=update.peers,
            )
        return Normed(*rms_norm.add_norm_reference(residual, update.parts, norm.weight, eps), None)

    def _project(self, x: Normed, *projections: Matrix) -> tuple[torch.Tensor, ...]:
        at_once = self.switches.fused_projections
        return tuple(
            part
            for projection in projections
            for part in projection.multiply_parts(x.rows, x.quantized, at_once=at_once)
        )

    def _output(
        self, rows: torch.Tensor, quantized: QuantizedRows | None, matrix: Matrix
    ) -> Update:
        """Multiply by the last matrix of a mixer; who adds the result may sum shares of it."""
        if self.switches.fused_norm and self._joining.leaves(len(rows)):
            return self._joining.join(Update(matrix.multiply_shares(rows, quantized)))
        return self._joining.join(Update(matrix.multiply(rows, quantized)))

    def _gated_attention(
        self,
        x: Normed,
        weights: GatedAttentionWeights,
        layer: int,
        plan: StepPlan,
        caches: Caches,
    ) -> Update:
        quantize = weights.output.scale is not None and self._kernels and len(x.rows) > 1
        parts = self._project(x, weights.projection)
        rows, quantized = self._attention.attend(
            parts, weights, layer, plan, caches, quantize=quantize
        )
        return self._output(rows, quantized, weights.output)

    def _gated_delta(
        self,
        x: Normed,
        weights: GatedDeltaWeights,
        layer: int,
        plan: StepPlan,
        caches: Caches,
    ) -> Update:
        state, rule, singles = caches.linear[layer], self._delta_rule, plan.singles
        qkv, z, b, a = self._project(x, *weights.projections)
        quantize = weights.output.scale is not None and self._kernels and len(qkv) > 1
        parts, quantized, whole = [], None, None
        if self._joins and singles and plan.sequences is not None:
            whole = GatedRows.empty(len(z), z.shape[1], qkv.dtype, qkv.device, quantize=quantize)
        if singles:
            rows, quantized = rule.step(
                *(qkv[:singles], z[:singles], a[:singles], b[:singles]),
                *(weights, state, plan.slots, plan.lengths),
                gated=self.switches.fused_norm,
                quantize=quantize and plan.sequences is None,
                into=None if whole is None else whole.part(0, singles),
            )
            parts.append(rows)
        if plan.sequences is not None:
            mixed = rule.chunks(
                *(qkv[singles:], a[singles:], b[singles:], weights, state, plan.sequences)
            )
            gate = z[singles:].view(*mixed.shape)
            eps = self.shapes.rms_norm_eps
            if self.switches.fused_norm:
                rows, quantized = rms_norm.gated_norm(
                    *(mixed, gate, weights.norm, eps),
                    quantize=quantize and not singles,
                    into=None if whole is None else whole.part(singles, len(qkv)),
                )
            else:
                rows = rms_norm.gated_norm_reference(mixed, gate, weights.norm, eps).flatten(1)
            parts.append(rows)
        if whole is not None:
            return self._output(whole.rows, whole.quantized, weights.output)
        rows = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self._output(rows, quantized, weights.output)

    def _all_experts(self, x: Normed, weights: ExpertWeights, gathered_rows: int) -> Update:
        """Compute the experts, which replicas and ranks may share."""
        replicas = self.ranks.replicas
        if replicas.size == 1:
            return self._joining.join(self._experts.compute(x, weights))
        # Every replica's tokens go to the experts of every rank.
        count = len(x.rows)
        rows = F.pad(x.rows, (0, 0, 0, max(gathered_rows, count) - count))
        everywhere = Normed(x.residual, replicas.gather(rows), None)
        partial = replicas.add_up_part(self._experts.compute(everywhere, weights).summed())
        return self._joining.join(Update(partial[:count]))
