"""What one step has to move and to multiply, and the least time that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from upcurve.limits.shape import BYTES, HEAD_SIZE, ModelShape, Precision

Bound = Literal["bandwidth", "compute"]
DELTA_FLOPS = 7 * HEAD_SIZE**2
"""Of one token and value head: decay (1), read for the delta (2), update (2), read (2), x 128^2."""


@dataclass(frozen=True, slots=True)
class Chip:
    """What one GPU can do, dense; by its vendor's data."""

    name: str
    memory_bytes: float
    bytes_per_s: float
    bf16_flops: float
    fp8_flops: float
    gpus: int
    """Joined by the fast links."""


@dataclass(frozen=True, slots=True)
class Step:
    """The least time of one step on each of `gpus` GPUs."""

    batch: int
    gpus: int
    bytes: float
    """Read and written by one GPU."""
    seconds: float
    bound: Bound


def experts_touched(shape: ModelShape, tokens: float) -> float:
    """Return how many experts of a layer some tokens need, the shared one included.

    E (1 - (1 - K / E)^T) + 1, for routing that is uniform and independent.
    """
    missed: float = (1 - shape.experts_per_token / shape.experts) ** tokens
    return shape.experts * (1 - missed) + 1


def decode_bytes(
    shape: ModelShape, precision: Precision, gpus: int, batch: int, context: float
) -> float:
    """Return the bytes that one GPU has to move in a decode step, tensor parallel over `gpus`.

    Weights that the batch touches, keys and values, recurrent and convolution states read and
    written. Routers are on every GPU, and KV heads are copied where there are fewer than GPUs.
    """
    size = BYTES[precision]
    experts = shape.layers * experts_touched(shape, batch) * shape.expert_weights * size
    dense = (shape.delta_weights + shape.attention_weights) * size
    head = shape.head_weights * BYTES["bf16"]
    state = 2 * batch * (shape.state_bytes + shape.convolution_bytes)
    kv = batch * context * shape.kv_bytes(precision) * max(1.0, shape.kv_heads / gpus)
    return (experts + dense + head + state) / gpus + kv + shape.router_weights * BYTES["bf16"]


def flops(
    shape: ModelShape, *, tokens: float, context: float, sampled: float
) -> tuple[float, float]:
    """Return the FLOPs of some tokens, over all GPUs: of what may be FP8, and of the rest.

    Args:
        shape: of the model.
        tokens: how many.
        context: mean length that each attends to.
        sampled: how many of them need the output head.
    """
    expert = shape.layers * (shape.experts_per_token + 1) * shape.expert_weights
    linear = 2 * tokens * (expert + shape.delta_weights + shape.attention_weights)
    attention = 4 * context * shape.query_heads * shape.head_size * shape.attention_layers
    delta = DELTA_FLOPS * shape.delta_value_heads * shape.delta_layers
    rest = tokens * (attention + delta + 2 * shape.router_weights)
    return linear, rest + 2 * sampled * shape.head_weights


def fits(
    shape: ModelShape, precision: Precision, chip: Chip, gpus: int, batch: int, context: float
) -> bool:
    """Whether weights, states, keys and values of a batch fit into the memory of `gpus` GPUs."""
    kv = context * shape.kv_bytes(precision) * max(1.0, shape.kv_heads / gpus)
    request = (shape.state_bytes + shape.convolution_bytes) / gpus + kv
    return shape.weight_bytes(precision) / gpus + batch * request <= chip.memory_bytes


def decode_step(
    shape: ModelShape,
    precision: Precision,
    chip: Chip,
    gpus: int,
    batch: int,
    *,
    isl: int = 0,
    osl: int = 1,
    context: float | None = None,
) -> Step:
    """Return the least time of a decode step that carries its share of prompts.

    In a closed loop of `batch` requests each step ends 1 / osl of them, and as many prompts come
    in: so a step multiplies batch x isl / osl prompt tokens as well. Its time is no less than
    max(bytes / bandwidth, FLOPs / peak), with bytes of the decodes alone.

    Args:
        shape: of the model.
        precision: of weights, keys and values.
        chip: one of the GPUs.
        gpus: how many, tensor parallel.
        batch: requests that decode.
        isl: input length; 0 leaves prompts out.
        osl: output length.
        context: mean length of a sequence; None: isl + osl / 2.
    """
    length = isl + osl / 2 if context is None else context
    moved = decode_bytes(shape, precision, gpus, batch, length)
    prompt = batch * isl / osl
    parts = [
        flops(shape, tokens=batch, context=length, sampled=batch),
        flops(shape, tokens=prompt, context=isl / 2, sampled=batch / osl if isl else 0),
    ]
    linear, rest = (sum(each) for each in zip(*parts, strict=True))
    peak = chip.fp8_flops if precision == "fp8" else chip.bf16_flops
    moving = moved / chip.bytes_per_s
    computing = (linear / peak + rest / chip.bf16_flops) / gpus
    bound: Bound = "bandwidth" if moving >= computing else "compute"
    return Step(batch, gpus, moved, max(moving, computing), bound)


def prompt_seconds(
    shape: ModelShape, precision: Precision, chip: Chip, gpus: int, isl: int
) -> float:
    """Return the least time from a prompt to its first token: FLOPs / peak, or the weights' bytes.

    Args:
        shape: of the model.
        precision: of the weights.
        chip: one of the GPUs.
        gpus: how many, tensor parallel.
        isl: input length.
    """
    linear, rest = flops(shape, tokens=isl, context=isl / 2, sampled=1)
    peak = chip.fp8_flops if precision == "fp8" else chip.bf16_flops
    computing = (linear / peak + rest / chip.bf16_flops) / gpus
    touched = experts_touched(shape, isl) / (shape.experts + 1)
    experts = shape.layers * (shape.experts + 1) * shape.expert_weights * touched
    weights = (experts + shape.delta_weights + shape.attention_weights) * BYTES[precision]
    return max(computing, weights / gpus / chip.bytes_per_s)
