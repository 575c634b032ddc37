"""The same model as plainly as it can be computed: torch alone, float32, one passage at a time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from upcurve.engine.fidelity.forced import Passage
from upcurve.engine.kernels import block_scaled
from upcurve.engine.kernels.block_scaled import BLOCK
from upcurve.engine.kernels.sequences import Chunk
from upcurve.engine.memory.caches import Caches, CacheTypes
from upcurve.engine.model.batch import ForwardBatch
from upcurve.engine.model.matrix import Rows
from upcurve.engine.model.model import Model
from upcurve.engine.model.weight_map import weight_map
from upcurve.engine.model.weights import ModelWeights
from upcurve.engine.switches import Switches

PAGE = 16


def plainly(model: Model) -> Model:
    """Return the same model with every optimisation off."""
    return Model(model.shapes, model.weights, Switches.without("all"), model.dtype)


def in_float32(model: Model) -> Model:
    """Return the same model in float32, every optimisation off; FP8 matrices are multiplied out."""
    if model.dtype == torch.float32 and not model.weights.quantized:
        return plainly(model)
    device = model.weights.embedding.device
    weights = ModelWeights.empty(model.shapes, device, torch.float32)
    stored = weight_map(model.weights)
    for name, target in weight_map(weights).items():
        assert isinstance(target, torch.Tensor)
        source = stored[name]
        target.copy_(_multiplied_out(source) if isinstance(source, Rows) else source)
    weights.prepare()
    return Model(model.shapes, weights, Switches.without("all"), torch.float32)


def _multiplied_out(rows: Rows) -> torch.Tensor:
    weight, scale = rows.tensors()
    whole = block_scaled.dequantize_blocks(weight, scale, torch.float32)
    first = rows.start % BLOCK
    return whole[..., first : first + rows.stop - rows.start, :]


def alone(model: Model, passages: Mapping[str, Passage]) -> dict[str, torch.Tensor]:
    """Return the logits of each passage, float32 [output, vocab].

    Each is computed whole, in one forward pass over memory that nobody had before: no scheduler, no
    decode step, no chunk of a prompt, no neighbour.
    """
    # A fused attention sums in an order of its own, and in float32 perhaps in fewer bits.
    plain = sdpa_kernel(SDPBackend.MATH) if model.dtype == torch.float32 else nullcontext()
    with plain:
        return {name: _alone(model, each) for name, each in passages.items()}


def _alone(model: Model, passage: Passage) -> torch.Tensor:
    device = model.weights.embedding.device
    ids = passage.seen
    count = len(ids)
    pages = -(-count // PAGE)
    caches = Caches(
        model.shapes,
        CacheTypes(model.dtype, model.dtype),
        slots=1,
        pages=pages,
        page_size=PAGE,
        pages_per_request=pages,
        device=device,
    )
    places = torch.arange(pages, device=device)
    caches.write_tables(places, places + 1)
    positions = torch.arange(count, device=device)
    batch = ForwardBatch(
        torch.tensor(ids, device=device),
        positions,
        torch.zeros_like(positions),
        singles=int(count == 1),
        longest=count,
        chunks=() if count == 1 else (Chunk(0, count, 0, 0),),
        logit_rows=positions[-len(passage.output) :],
    )
    return model.forward(batch, caches)
