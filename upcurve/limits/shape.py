"""Shapes of Qwen3.5 MoE models: what a token has to read and to multiply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from upcurve.errors import InputError

Precision = Literal["fp8", "bf16"]
BYTES: dict[Precision, int] = {"fp8": 1, "bf16": 2}
STATE_BYTES = 4
"""Recurrent state of Gated DeltaNet layers is float32 in the checkpoints' configuration."""
HEAD_SIZE = 128
"""Of keys and values of Gated DeltaNet."""
CONVOLUTION = 4


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A Qwen3.5 MoE model: Gated DeltaNet and gated attention layers, experts in every layer."""

    name: str
    hidden: int
    delta_layers: int
    attention_layers: int
    query_heads: int
    kv_heads: int
    head_size: int
    delta_key_heads: int
    delta_value_heads: int
    experts: int
    experts_per_token: int
    intermediate: int
    """Of one expert, and of the shared one."""
    vocabulary: int

    @property
    def layers(self) -> int:
        """Layers of both kinds."""
        return self.delta_layers + self.attention_layers

    @property
    def expert_weights(self) -> int:
        """Weights of one expert of one layer: gate, up, down."""
        return 3 * self.hidden * self.intermediate

    @property
    def delta_weights(self) -> int:
        """Weights of the projections of all Gated DeltaNet layers."""
        keys, values = self.delta_key_heads * HEAD_SIZE, self.delta_value_heads * HEAD_SIZE
        # In: query, key, value, gate z, and a and b of each head; out: value.
        rows = 2 * keys + values + values + 2 * self.delta_value_heads + values
        return self.delta_layers * rows * self.hidden

    @property
    def attention_weights(self) -> int:
        """Weights of the projections of all gated-attention layers; queries carry a gate."""
        rows = 3 * self.query_heads * self.head_size + 2 * self.kv_heads * self.head_size
        return self.attention_layers * rows * self.hidden

    @property
    def router_weights(self) -> int:
        """Weights of the routers of all layers, never quantised."""
        return self.layers * self.experts * self.hidden

    @property
    def head_weights(self) -> int:
        """Weights of the output head; the embedding has as many, of which a token reads one row."""
        return self.vocabulary * self.hidden

    @property
    def state_bytes(self) -> int:
        """Recurrent state of one request, in bytes."""
        return self.delta_layers * self.delta_value_heads * HEAD_SIZE**2 * STATE_BYTES

    @property
    def convolution_bytes(self) -> int:
        """Convolution state of one request, in bytes: bf16."""
        keys, values = self.delta_key_heads * HEAD_SIZE, self.delta_value_heads * HEAD_SIZE
        return self.delta_layers * (2 * keys + values) * (CONVOLUTION - 1) * 2

    def kv_bytes(self, precision: Precision) -> int:
        """Return the bytes of keys and values of one token and one KV head, over all layers."""
        return self.attention_layers * 2 * self.head_size * BYTES[precision]

    def weight_bytes(self, precision: Precision) -> int:
        """Return the bytes of all weights, embedding included."""
        quantised = (
            self.layers * (self.experts + 1) * self.expert_weights
            + self.delta_weights
            + self.attention_weights
        )
        plain = self.router_weights + 2 * self.head_weights
        return quantised * BYTES[precision] + plain * BYTES["bf16"]


SHAPES = {
    each.name: each
    for each in (
        ModelShape(
            name="Qwen3.5-35B-A3B",
            hidden=2048,
            delta_layers=30,
            attention_layers=10,
            query_heads=16,
            kv_heads=2,
            head_size=256,
            delta_key_heads=16,
            delta_value_heads=32,
            experts=256,
            experts_per_token=8,
            intermediate=512,
            vocabulary=248_320,
        ),
        ModelShape(
            name="Qwen3.5-397B-A17B",
            hidden=4096,
            delta_layers=45,
            attention_layers=15,
            query_heads=32,
            kv_heads=2,
            head_size=256,
            delta_key_heads=16,
            delta_value_heads=64,
            experts=512,
            experts_per_token=10,
            intermediate=1024,
            vocabulary=248_320,
        ),
    )
}
"""By name. 35B-A3B: class defaults of transformers 5.23's Qwen3_5MoeTextConfig; 397B-A17B: as
THUDM's slime and AI-Hypercomputer's maxtext configure it."""


def find_shape(model: str) -> ModelShape | None:
    """Return the shape of a model by its name, whatever organisation or precision it carries.

    `Qwen/Qwen3.5-35B-A3B-FP8` is Qwen3.5-35B-A3B; None where it is no model of these.
    """
    own = model.rpartition("/")[2].lower()
    for name, shape in SHAPES.items():
        rest = own.removeprefix(name.lower())
        if rest != own and rest in ("", "-fp8", "-bf16"):
            return shape
    return None


def shape_of(model: str) -> ModelShape:
    """Return the shape of a model by its name.

    Raises:
        InputError: it is not known.
    """
    shape = find_shape(model)
    if shape is None:
        raise InputError("model", f"no shape of {model!r} is known", f"give {' or '.join(SHAPES)}")
    return shape
