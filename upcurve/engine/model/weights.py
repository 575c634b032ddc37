"""The parameters of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from upcurve.engine.kernels.block_scaled import FP8
from upcurve.engine.model.matrix import Matrix
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.sharding import Sharding
from upcurve.engine.parallel.layout import WHOLE, Share
from upcurve.engine.platform import runs_kernels

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
