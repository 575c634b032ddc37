"""A model of which nothing is there: for what its steps launch, not for numbers."""

from __future__ import annotations

import torch

from upcurve.engine.kernels.peers import Peers
from upcurve.engine.model.joining import reaches
from upcurve.engine.model.model import Model
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.weights import ModelWeights
from upcurve.engine.parallel.boxes import most_rows
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.ranks import Ranks
from upcurve.engine.switches import Switches


def absent_model(
    shapes: ModelShapes, dtype: torch.dtype, switches: Switches, layout: Layout, *, quantized: bool
) -> Model:
    """Return what the first rank of a layout has, on a GPU as `as_if_on` says.

    Tensors are fake, the other ranks are not there, and neither is what their GPUs need to reach
    each other: where they are of a kind that can, they do.

    Args:
        shapes: of the whole model.
        dtype: of plain matrices and of activations.
        switches: which optimisations are on.
        layout: of the ranks, as `check_layout` takes it.
        quantized: whether matrices are FP8.
    """
    device, ranks = torch.device("cuda", 0), Ranks.absent(layout)
    weights = ModelWeights.empty(shapes, device, dtype, quantized=quantized, share=ranks.share)
    weights.prepare()
    peers = None
    if reaches(ranks.heads, switches, device):
        count, width = ranks.heads.size, shapes.hidden_size
        rows = most_rows(count, width, dtype, device)
        peers = Peers.absent(count, rows, width, dtype, device)
    return Model(weights.sharding.shapes, weights, switches, dtype, ranks, peers)
