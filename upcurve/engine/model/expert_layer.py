"""The experts of a layer: routing, the routed ones and the shared one."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from upcurve.engine.kernels import experts, matrix_vector, routing
from upcurve.engine.kernels.mixing import mix
from upcurve.engine.kernels.rms_norm import Normed
from upcurve.engine.model.matrix import Matrix
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.update import Update
from upcurve.engine.model.weights import ExpertWeights, ModelWeights
from upcurve.engine.switches import Switches


class ExpertLayer:
    """From normed rows to what the experts that this rank has add to the residual stream."""

    def __init__(
        self, shapes: ModelShapes, weights: ModelWeights, switches: Switches, shared_scale: float
    ) -> None:
        """Choose how to compute.

        Args:
            shapes: with the whole model's experts.
            weights: of the model.
            switches: which optimisations are on.
            shared_scale: what the shared expert counts on this rank.
        """
        first, mine = weights.layers[0].experts, weights.sharding.experts
        fusable = len(first.gate_up.weight) > first.routed
        self.shared_fused = switches.shared_expert_fusion and fusable
        """Whether the shared expert is one of the grouped ones: not where its size differs."""
        self._owned = mine if len(mine) < shapes.num_experts else None
        """The routed experts that this rank has; None where it has all."""
        self._count, self._top_k = shapes.num_experts, shapes.num_experts_per_tok
        self._switches = switches
        self._shared_scale = shared_scale

    def compute(self, x: Normed, weights: ExpertWeights) -> Update:
        """Compute the experts that this rank has."""
        count, top_k, scale, owned = self._count, self._top_k, self._shared_scale, self._owned
        shared, routed_here, rows = self.shared_fused, weights.routed, x.rows
        if self._switches.fused_topk:
            logits = matrix_vector.linear(rows, weights.aligned_router)
            shared_logit = logits[:, count : count + 1]
            chosen = logits[:, : count + shared]
            mixing, ids = routing.route(
                chosen, top_k, shared=shared, shared_scale=scale, owned=owned
            )
        else:
            shared_logit = F.linear(rows, weights.router[count:])
            mixing, ids = routing.route_reference(F.linear(rows, weights.router[:count]), top_k)
            if owned is not None:
                mixing, ids = routing.own(mixing, ids, owned, routed_here + shared)
            if shared:
                gate = shared_logit.squeeze(-1)
                mixing, ids = routing.append_shared(mixing, ids, gate, routed_here, scale)
        size = routed_here + shared
        matrices = _tensors(weights.gate_up[:size], weights.down[:size])
        if self._switches.grouped_experts:
            results = experts.experts_grouped(rows, ids, *matrices, quantized=x.quantized)
            if shared and self._switches.fused_norm:
                return Update(results, mixing)
            routed = mix(results, mixing)
        else:
            routed = experts.experts_reference(rows, ids, mixing, *matrices)
        if shared:
            return Update(routed)
        alone = experts.dense(rows, *_tensors(weights.shared_gate_up, weights.shared_down))
        return Update(routed + routing.shared_weight(shared_logit, scale) * alone)


def _tensors(
    gate_up: Matrix, down: Matrix
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    return gate_up.weight, down.weight, gate_up.scale, down.scale
