"""What a checkpoint is known by: a hash of weights that every rank has, whatever the layout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch

from upcurve.engine.errors import EngineInputError
from upcurve.engine.model.weights import ModelWeights
from upcurve.engine.parallel.ranks import Ranks


def weights_fingerprint(weights: ModelWeights) -> str:
    """Return a hash of the last norm and the routers.

    Every rank has them whole, quantising leaves them as they are, and training does not.
    """
    routers = (layer.experts.router.bfloat16() for layer in weights.layers)
    return fingerprint([weights.norm.weight, *routers])


def fingerprint(tensors: Iterable[torch.Tensor]) -> str:
    """Return a hash of the bytes of tensors, which are copied to the host one by one."""
    found = hashlib.sha256()
    for tensor in tensors:
        data = tensor.detach().contiguous().view(-1).view(torch.uint8)
        found.update(data.cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def check_same(weights: ModelWeights, ranks: Ranks) -> None:
    """Wait for all ranks, and check that they have loaded the same checkpoint.

    Raises:
        EngineInputError: they have not.
    """
    if ranks.alone:
        return
    mine = ranks.heads.objects(weights_fingerprint(weights))
    found = [each for of in ranks.replicas.objects(mine) for each in of]
    if len(set(found)) > 1:
        raise EngineInputError(
            "model", "ranks have loaded other weights", "give all nodes the same checkpoint"
        )
