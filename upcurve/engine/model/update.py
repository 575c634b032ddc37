"""What the layers of a model hand from one to the next beside the residual stream."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from upcurve.engine.kernels.mixing import mix
from upcurve.engine.kernels.peers import Peers


@dataclass(frozen=True, slots=True)
class Update:
    """What a mixer or the experts add to the residual stream, perhaps not summed yet."""

    parts: torch.Tensor | None
    """[T, H], or [T, P, H]; None before the first layer."""
    mixing: torch.Tensor | None = None
    """float32 [T, P]: weights of the parts; None where they count fully."""
    peers: Peers | None = None
    """The ranks over which it is still to be summed, by who adds it."""

    def summed(self) -> torch.Tensor:
        """Return the sum of the parts, [T, H]."""
        assert self.parts is not None
        assert self.peers is None
        return self.parts if self.mixing is None else mix(self.parts, self.mixing)

    def rows(self, where: torch.Tensor) -> Update:
        """Return that of some tokens, int64 [R]."""
        some = None if self.parts is None else self.parts[where]
        return Update(some, None if self.mixing is None else self.mixing[where], self.peers)
