"""Which parameter each checkpoint tensor fills, by name."""

from __future__ import annotations

import torch

from upcurve.engine.model.matrix import Matrix, Rows
from upcurve.engine.model.weights import (
    GatedAttentionWeights,
    GatedDeltaWeights,
    LayerWeights,
    ModelWeights,
)

Target = torch.Tensor | Rows
"""What a checkpoint tensor fills: a view of a plain parameter, or rows of a quantised one."""


def weight_map(weights: ModelWeights) -> dict[str, Target]:
    """Return checkpoint tensor name -> what it fills, in the fused expert layout.

    Names are those of the text model without their prefix (`model.` or `model.language_model.`).
    """
    table: dict[str, Target] = {
        "embed_tokens.weight": weights.embedding[: len(weights.sharding.vocabulary)],
        "norm.weight": weights.norm.weight,
    }
    if weights.head is not weights.embedding:
        table["lm_head.weight"] = weights.head[: len(weights.sharding.vocabulary)]
    for index, layer in enumerate(weights.layers):
        for name, target in _layer_map(layer).items():
            table[f"layers.{index}.{name}"] = target
    return table


def parameter_bytes(weights: ModelWeights) -> int:
    """Return the bytes of all checkpoint parameters, scales included."""
    stores = {
        tensor.untyped_storage()
        for target in weight_map(weights).values()
        for tensor in (target.tensors() if isinstance(target, Rows) else (target,))
    }
    return sum(store.nbytes() for store in stores)


def _layer_map(layer: LayerWeights) -> dict[str, Target]:
    experts = layer.experts
    count = len(experts.router) - 1
    gate, up = _parts(experts.shared_gate_up)
    return {
        "input_layernorm.weight": layer.input_norm.weight,
        "post_attention_layernorm.weight": layer.post_norm.weight,
        **_mixer_map(layer.mixer),
        "mlp.gate.weight": experts.router[:count],
        "mlp.shared_expert_gate.weight": experts.router[count:],
        "mlp.experts.gate_up_proj": _whole(experts.gate_up[: experts.routed]),
        "mlp.experts.down_proj": _whole(experts.down[: experts.routed]),
        "mlp.shared_expert.gate_proj.weight": gate,
        "mlp.shared_expert.up_proj.weight": up,
        "mlp.shared_expert.down_proj.weight": _whole(experts.shared_down),
    }


def _mixer_map(mixer: GatedAttentionWeights | GatedDeltaWeights) -> dict[str, Target]:
    if isinstance(mixer, GatedAttentionWeights):
        q, k, v = _parts(mixer.projection)
        return {
            "self_attn.q_proj.weight": q,
            "self_attn.k_proj.weight": k,
            "self_attn.v_proj.weight": v,
            "self_attn.q_norm.weight": mixer.q_norm.weight,
            "self_attn.k_norm.weight": mixer.k_norm.weight,
            "self_attn.o_proj.weight": _whole(mixer.output),
        }
    qkv, z, b, a = (part for matrix in mixer.projections for part in _parts(matrix))
    return {
        "linear_attn.in_proj_qkv.weight": qkv,
        "linear_attn.in_proj_z.weight": z,
        "linear_attn.in_proj_b.weight": b,
        "linear_attn.in_proj_a.weight": a,
        # The checkpoint has [channels, 1, kernel].
        "linear_attn.conv1d.weight": mixer.convolution.t().unsqueeze(1),
        "linear_attn.A_log": mixer.a_log,
        "linear_attn.dt_bias": mixer.dt_bias,
        "linear_attn.norm.weight": mixer.norm,
        "linear_attn.out_proj.weight": _whole(mixer.output),
    }


def _whole(matrix: Matrix) -> Target:
    return matrix.weight if matrix.scale is None else Rows(matrix, 0, sum(matrix.parts))


def _parts(matrix: Matrix) -> list[Target]:
    if matrix.scale is None:
        return list(matrix.weight.split(list(matrix.parts), dim=-2))
    return [Rows(matrix, *bounds) for bounds in matrix.bounds()]
