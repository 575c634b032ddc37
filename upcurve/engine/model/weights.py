"""The parameters of the model, and the table that says which checkpoint tensor fills which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from upcurve.engine.model.shapes import ModelShapes


@dataclass(slots=True)
class Norm:
    """A zero-centred norm: y = x / rms(x) * (1 + weight)."""

    weight: torch.Tensor
    """float32 [width]."""
    one_plus: torch.Tensor
    """float32 [width]: 1 + weight, prepared once after loading."""

    @classmethod
    def empty(cls, width: int, device: torch.device) -> Norm:
        """Allocate both."""
        return cls(*(torch.empty(width, device=device) for _ in range(2)))


@dataclass(slots=True)
class GatedAttentionWeights:
    """Parameters of one gated-attention mixer."""

    projection: torch.Tensor
    """[2 heads * head_dim + 2 kv_heads * head_dim, H]: query and gate per head, keys, values."""
    q_norm: Norm
    k_norm: Norm
    output: torch.Tensor
    """[H, heads * head_dim]."""


@dataclass(slots=True)
class GatedDeltaWeights:
    """Parameters of one Gated DeltaNet mixer."""

    projection: torch.Tensor
    """[conv_dim + value_dim + 2 value_heads, H]: q, k, v, then z, then b, then a."""
    convolution: torch.Tensor
    """[kernel, conv_dim], oldest first."""
    a_log: torch.Tensor
    """float32 [value_heads]."""
    dt_bias: torch.Tensor
    """float32 [value_heads]."""
    norm: torch.Tensor
    """float32 [value_head_dim]: an ordinary norm, not zero-centred."""
    output: torch.Tensor
    """[H, value_dim]."""


@dataclass(slots=True)
class ExpertWeights:
    """Parameters of one mixture-of-experts block."""

    router: torch.Tensor
    """[E + 1, H]: the shared expert's gate is row E."""
    gate_up: torch.Tensor
    """[E or E + 1, 2 I, H], gate rows first; row E is the shared expert where its size is I."""
    down: torch.Tensor
    """[E or E + 1, H, I]."""
    shared_gate_up: torch.Tensor
    """[2 S, H]: a view of row E, or a tensor of its own where S is not I."""
    shared_down: torch.Tensor
    """[H, S], likewise."""


@dataclass(slots=True)
class LayerWeights:
    """Parameters of one decoder layer."""

    input_norm: Norm
    mixer: GatedAttentionWeights | GatedDeltaWeights
    post_norm: Norm
    experts: ExpertWeights


@dataclass(slots=True)
class ModelWeights:
    """All parameters."""

    embedding: torch.Tensor
    """[vocab, H]."""
    layers: list[LayerWeights]
    norm: Norm
    head: torch.Tensor
    """[vocab, H]: the embedding itself where they are tied."""

    @classmethod
    def empty(cls, shapes: ModelShapes, device: torch.device, dtype: torch.dtype) -> ModelWeights:
        """Allocate every parameter, uninitialised."""

        def new(*size: int) -> torch.Tensor:
            return torch.empty(size, device=device, dtype=dtype)

        embedding = new(shapes.vocab_size, shapes.hidden_size)
        return cls(
            embedding=embedding,
            layers=[_empty_layer(shapes, i, device, new) for i in range(shapes.num_layers)],
            norm=Norm.empty(shapes.hidden_size, device),
            head=embedding
            if shapes.tie_word_embeddings
            else new(shapes.vocab_size, shapes.hidden_size),
        )

    def norms(self) -> Iterator[Norm]:
        """Yield every zero-centred norm."""
        yield self.norm
        for layer in self.layers:
            yield layer.input_norm
            yield layer.post_norm
            if isinstance(layer.mixer, GatedAttentionWeights):
                yield layer.mixer.q_norm
                yield layer.mixer.k_norm

    def prepare(self) -> None:
        """Derive what is computed once after loading."""
        for norm in self.norms():
            torch.add(norm.weight, 1.0, out=norm.one_plus)

    def parameter_bytes(self) -> int:
        """Return the bytes of all checkpoint parameters."""
        return sum(tensor.numel() * tensor.element_size() for tensor in weight_map(self).values())


New = Callable[..., torch.Tensor]


def _empty_layer(shapes: ModelShapes, index: int, device: torch.device, new: New) -> LayerWeights:
    hidden = shapes.hidden_size
    experts, width = shapes.num_experts, shapes.moe_intermediate_size
    shared = shapes.shared_expert_intermediate_size
    fusable = shared == width
    gate_up = new(experts + fusable, 2 * width, hidden)
    down = new(experts + fusable, hidden, width)
    return LayerWeights(
        input_norm=Norm.empty(hidden, device),
        mixer=_empty_mixer(shapes, index, device, new),
        post_norm=Norm.empty(hidden, device),
        experts=ExpertWeights(
            router=new(experts + 1, hidden),
            gate_up=gate_up,
            down=down,
            shared_gate_up=gate_up[experts] if fusable else new(2 * shared, hidden),
            shared_down=down[experts] if fusable else new(hidden, shared),
        ),
    )


def _empty_mixer(
    shapes: ModelShapes, index: int, device: torch.device, new: New
) -> GatedAttentionWeights | GatedDeltaWeights:
    hidden = shapes.hidden_size
    if shapes.layer_types[index] == "full_attention":
        heads = 2 * shapes.num_attention_heads + 2 * shapes.num_key_value_heads
        return GatedAttentionWeights(
            projection=new(heads * shapes.head_dim, hidden),
            q_norm=Norm.empty(shapes.head_dim, device),
            k_norm=Norm.empty(shapes.head_dim, device),
            output=new(hidden, shapes.num_attention_heads * shapes.head_dim),
        )
    heads = shapes.linear_num_value_heads
    return GatedDeltaWeights(
        projection=new(shapes.conv_dim + shapes.value_dim + 2 * heads, hidden),
        convolution=new(shapes.linear_conv_kernel_dim, shapes.conv_dim),
        a_log=torch.empty(heads, device=device),
        dt_bias=torch.empty(heads, device=device),
        norm=torch.empty(shapes.linear_value_head_dim, device=device),
        output=new(hidden, shapes.value_dim),
    )


def weight_map(weights: ModelWeights) -> dict[str, torch.Tensor]:
    """Return checkpoint tensor name -> the view that it fills, in the fused expert layout.

    Names are those of the text model without their prefix (`model.` or `model.language_model.`).
    """
    table = {"embed_tokens.weight": weights.embedding, "norm.weight": weights.norm.weight}
    if weights.head is not weights.embedding:
        table["lm_head.weight"] = weights.head
    for index, layer in enumerate(weights.layers):
        for name, tensor in _layer_map(layer).items():
            table[f"layers.{index}.{name}"] = tensor
    return table


def _layer_map(layer: LayerWeights) -> dict[str, torch.Tensor]:
    experts = layer.experts
    count = len(experts.router) - 1
    shared = len(experts.shared_gate_up) // 2
    return {
        "input_layernorm.weight": layer.input_norm.weight,
        "post_attention_layernorm.weight": layer.post_norm.weight,
        **_mixer_map(layer.mixer),
        "mlp.gate.weight": experts.router[:count],
        "mlp.shared_expert_gate.weight": experts.router[count:],
        "mlp.experts.gate_up_proj": experts.gate_up[:count],
        "mlp.experts.down_proj": experts.down[:count],
        "mlp.shared_expert.gate_proj.weight": experts.shared_gate_up[:shared],
        "mlp.shared_expert.up_proj.weight": experts.shared_gate_up[shared:],
        "mlp.shared_expert.down_proj.weight": experts.shared_down,
    }


def _mixer_map(mixer: GatedAttentionWeights | GatedDeltaWeights) -> dict[str, torch.Tensor]:
    if isinstance(mixer, GatedAttentionWeights):
        queries = 2 * mixer.output.shape[1]
        q, k, v = mixer.projection.split([queries, *[(len(mixer.projection) - queries) // 2] * 2])
        return {
            "self_attn.q_proj.weight": q,
            "self_attn.k_proj.weight": k,
            "self_attn.v_proj.weight": v,
            "self_attn.q_norm.weight": mixer.q_norm.weight,
            "self_attn.k_norm.weight": mixer.k_norm.weight,
            "self_attn.o_proj.weight": mixer.output,
        }
    channels, heads = mixer.convolution.shape[1], len(mixer.a_log)
    qkv, z, b, a = mixer.projection.split([channels, mixer.output.shape[1], heads, heads])
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
        "linear_attn.out_proj.weight": mixer.output,
    }


def single_expert(name: str, table: dict[str, torch.Tensor]) -> tuple[str, int, str] | None:
    """Split the name of one expert's tensor, as in `layers.0.mlp.experts.7.up_proj.weight`.

    Returns:
        The name of the fused tensor in `table`, the expert, and "gate", "up" or "down"; None where
        the name is none of these.
    """
    head, found, tail = name.partition(".mlp.experts.")
    parts = tail.split(".")
    if not found or len(parts) != 3 or not parts[0].isdigit() or parts[2] != "weight":
        return None
    kinds = {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "down_proj": "down_proj"}
    fused = f"{head}.mlp.experts.{kinds.get(parts[1], '')}"
    if fused not in table or int(parts[0]) >= len(table[fused]):
        return None
    return fused, int(parts[0]), parts[1].removesuffix("_proj")
