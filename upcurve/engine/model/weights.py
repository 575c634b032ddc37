"""The parameters of the model, and the table that says which checkpoint tensor fills which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from upcurve.engine.kernels.block_scaled import FP8
from upcurve.engine.model.matrix import Matrix, Rows
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.sharding import Sharding
from upcurve.engine.parallel.layout import WHOLE, Share
from upcurve.engine.platform import runs_kernels

Target = torch.Tensor | Rows
"""What a checkpoint tensor fills: a view of a plain parameter, or rows of a quantised one."""

ROUTER_ROWS = 8
"""A library's product is twice as slow where rows of the result are not aligned."""


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

    projection: Matrix
    """[2 heads * head_dim + 2 kv_heads * head_dim, H]: query and gate per head, keys, values."""
    q_norm: Norm
    k_norm: Norm
    output: Matrix
    """[H, heads * head_dim]."""


@dataclass(slots=True)
class GatedDeltaWeights:
    """Parameters of one Gated DeltaNet mixer."""

    projections: tuple[Matrix, ...]
    """[conv_dim + value_dim + 2 value_heads, H]: q, k, v, then z, then b, then a.

    Two of them where matrices are quantised, because b and a are not.
    """
    convolution: torch.Tensor
    """[kernel, conv_dim], oldest first."""
    a_log: torch.Tensor
    """float32 [value_heads]."""
    dt_bias: torch.Tensor
    """float32 [value_heads]."""
    norm: torch.Tensor
    """float32 [value_head_dim]: an ordinary norm, not zero-centred."""
    output: Matrix
    """[H, value_dim]."""


@dataclass(slots=True)
class ExpertWeights:
    """Parameters of one mixture-of-experts block: the router of all, and the E that a rank has."""

    router: torch.Tensor
    """[all experts + 1, H]: the shared expert's gate is the last row."""
    routed: int
    """E."""
    gate_up: Matrix
    """[E or E + 1, 2 I, H], gate rows first; row E is the shared expert where its size is I."""
    down: Matrix
    """[E or E + 1, H, I]."""
    shared_gate_up: Matrix
    """[2 S, H]: a view of row E, or a tensor of its own where S is not I."""
    shared_down: Matrix
    """[H, S], likewise."""
    aligned_router: torch.Tensor
    """`router` and zeros, up to a multiple of `ROUTER_ROWS`: prepared once after loading."""


@dataclass(slots=True)
class LayerWeights:
    """Parameters of one decoder layer."""

    input_norm: Norm
    mixer: GatedAttentionWeights | GatedDeltaWeights
    post_norm: Norm
    experts: ExpertWeights


@dataclass(slots=True)
class ModelWeights:
    """All parameters, or those that one rank has; sizes are then the rank's."""

    sharding: Sharding
    embedding: torch.Tensor
    """[vocab, H]; where ranks share it, each has as many rows, and the last ones may be zeros."""
    layers: list[LayerWeights]
    norm: Norm
    head: torch.Tensor
    """[vocab, H]: the embedding itself where they are tied."""

    @classmethod
    def empty(
        cls,
        shapes: ModelShapes,
        device: torch.device,
        dtype: torch.dtype,
        *,
        quantized: bool = False,
        share: Share = WHOLE,
    ) -> ModelWeights:
        """Allocate every parameter, uninitialised.

        Args:
            shapes: of the whole model.
            device: "meta" allocates nothing.
            dtype: of plain matrices.
            quantized: hold in FP8 the matrices that published FP8 checkpoints have in FP8: experts,
                the shared expert, and the projections of both mixers but those of b and a.
            share: what this rank has.

        Raises:
            EngineInputError: the kernels of a GPU do not take these sizes in FP8.
        """
        sharding = Sharding(shapes, share)
        shapes, rows = sharding.shapes, sharding.vocabulary_rows
        if quantized and runs_kernels(device):
            shapes.check_fp8_on_gpu()
        new = _Allocator(device, dtype, FP8 if quantized else dtype)
        embedding = new.tensor(rows, shapes.hidden_size)
        head = embedding if shapes.tie_word_embeddings else new.tensor(rows, shapes.hidden_size)
        if len(sharding.vocabulary) < rows:
            for each in (embedding, head):
                each[len(sharding.vocabulary) :].zero_()
        return cls(
            sharding=sharding,
            embedding=embedding,
            layers=[_empty_layer(sharding, i, new) for i in range(shapes.num_layers)],
            norm=Norm.empty(shapes.hidden_size, device),
            head=head,
        )

    @property
    def quantized(self) -> bool:
        """Whether matrices are FP8."""
        return self.layers[0].experts.gate_up.scale is not None

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
        for layer in self.layers:
            router = layer.experts.router
            layer.experts.aligned_router = F.pad(router, (0, 0, 0, -len(router) % ROUTER_ROWS))

    def parameter_bytes(self) -> int:
        """Return the bytes of all checkpoint parameters, scales included."""
        stores = {
            tensor.untyped_storage()
            for target in weight_map(self).values()
            for tensor in (target.tensors() if isinstance(target, Rows) else (target,))
        }
        return sum(store.nbytes() for store in stores)


@dataclass(frozen=True, slots=True)
class _Allocator:
    device: torch.device
    dtype: torch.dtype
    matrix_dtype: torch.dtype

    def tensor(self, *size: int) -> torch.Tensor:
        return torch.empty(size, device=self.device, dtype=self.dtype)

    def vector(self, size: int) -> torch.Tensor:
        return torch.empty(size, device=self.device)

    def matrix(self, *parts: int, width: int, experts: int | None = None) -> Matrix:
        dtype = self.matrix_dtype
        return Matrix.empty(parts, width, experts=experts, device=self.device, dtype=dtype)

    def plain(self, *parts: int, width: int) -> Matrix:
        return Matrix.empty(parts, width, device=self.device, dtype=self.dtype)


def _empty_layer(sharding: Sharding, index: int, new: _Allocator) -> LayerWeights:
    shapes = sharding.shapes
    hidden = shapes.hidden_size
    experts, width = len(sharding.experts), shapes.moe_intermediate_size
    shared = shapes.shared_expert_intermediate_size
    fusable = shared == width
    gate_up = new.matrix(width, width, width=hidden, experts=experts + fusable)
    down = new.matrix(hidden, width=width, experts=experts + fusable)
    return LayerWeights(
        input_norm=Norm.empty(hidden, new.device),
        mixer=_empty_mixer(shapes, index, new),
        post_norm=Norm.empty(hidden, new.device),
        experts=ExpertWeights(
            router=new.tensor(shapes.num_experts + 1, hidden),
            routed=experts,
            gate_up=gate_up,
            down=down,
            shared_gate_up=gate_up[experts]
            if fusable
            else new.matrix(shared, shared, width=hidden),
            shared_down=down[experts] if fusable else new.matrix(hidden, width=shared),
            aligned_router=new.tensor(0, hidden),
        ),
    )


def _empty_mixer(
    shapes: ModelShapes, index: int, new: _Allocator
) -> GatedAttentionWeights | GatedDeltaWeights:
    hidden = shapes.hidden_size
    if shapes.layer_types[index] == "full_attention":
        queries = shapes.num_attention_heads * shapes.head_dim
        keys = shapes.num_key_value_heads * shapes.head_dim
        return GatedAttentionWeights(
            projection=new.matrix(2 * queries, keys, keys, width=hidden),
            q_norm=Norm.empty(shapes.head_dim, new.device),
            k_norm=Norm.empty(shapes.head_dim, new.device),
            output=new.matrix(hidden, width=queries),
        )
    large, heads = (shapes.conv_dim, shapes.value_dim), shapes.linear_num_value_heads
    return GatedDeltaWeights(
        projections=(new.plain(*large, heads, heads, width=hidden),)
        if new.matrix_dtype == new.dtype
        else (new.matrix(*large, width=hidden), new.plain(heads, heads, width=hidden)),
        convolution=new.tensor(shapes.linear_conv_kernel_dim, shapes.conv_dim),
        a_log=new.vector(heads),
        dt_bias=new.vector(heads),
        norm=new.vector(shapes.linear_value_head_dim),
        output=new.matrix(hidden, width=shapes.value_dim),
    )


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
