"""What the ranks of a replica give each other: rows of the embedding, sums, and logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from upcurve.engine.kernels.peers import Peers
from upcurve.engine.model.update import Update
from upcurve.engine.model.weights import ModelWeights
from upcurve.engine.parallel.group import Group
from upcurve.engine.platform import shares_memory
from upcurve.engine.switches import Switches

GATHERED_BYTES = 2**21
"""Up to so many, every rank takes the others' parts and sums them where it adds them; more is
summed on the way, where each rank receives less. Two ranks receive the same either way, and take
as long (docs/measured.md); the limit is not measured for more."""


def sums_in_memory(switches: Switches) -> bool:
    """Return whether ranks that can are to write into each other's memory."""
    return switches.peer_memory and switches.fused_all_reduce and switches.fused_norm


def reaches(heads: Group, switches: Switches, device: torch.device) -> bool:
    """Return whether ranks are to try it, all of them alike: not where they share a GPU."""
    can = heads.size > 1 and heads.capturable and shares_memory(device)
    return can and sums_in_memory(switches)


class Joining:
    """How one rank of a replica joins what it computes with what the others compute."""

    def __init__(
        self, heads: Group, weights: ModelWeights, switches: Switches, peers: Peers | None
    ) -> None:
        """Take part.

        Args:
            heads: the ranks.
            weights: what this one has of the model.
            switches: which optimisations are on.
            peers: the ranks' memory, where small sums go through it.
        """
        self._heads = heads
        self._embedding = weights.embedding
        self._vocabulary = weights.sharding.vocabulary
        self._vocab_size = weights.sharding.shapes.vocab_size
        self._fused = switches.fused_all_reduce and switches.fused_norm
        self._peers = peers

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self._heads.size == 1

    def leaves(self, rows: int) -> bool:
        """Whether so many rows are left as they are: who adds them sums parts and ranks."""
        return self.alone or (self._peers is not None and rows <= self._peers.rows)

    def embed(self, token_ids: torch.Tensor) -> tuple[torch.Tensor, Update]:
        """Return the residual stream before the first layer, and what is to be added to it.

        Args:
            token_ids: int64 [T].
        """
        if self.alone:
            return F.embedding(token_ids, self._embedding), Update(None)
        mine = self._vocabulary
        here = (token_ids >= mine.start) & (token_ids < mine.stop)
        rows = F.embedding((token_ids - mine.start).where(here, 0), self._embedding)
        partial = rows * here.unsqueeze(-1)
        if self._peers is not None and self.leaves(len(rows)):
            return torch.zeros_like(rows), Update(partial, peers=self._peers)
        return self._heads.add_up(partial), Update(None)

    def join(self, update: Update) -> Update:
        """Return the sum over the ranks of what each has computed; or its parts."""
        if self.alone:
            return update
        if update.parts is not None and self.leaves(len(update.parts)):
            return Update(update.parts, update.mixing, self._peers)
        partial, heads = update.summed(), self._heads
        if self._fused:
            received = (heads.size - 1) * partial.numel() * partial.element_size()
            if heads.size == 2 or received <= GATHERED_BYTES:
                parts = heads.gather(partial).view(heads.size, *partial.shape)
                return Update(parts.transpose(0, 1))
        return Update(heads.add_up(partial))

    def all_columns(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits of the whole vocabulary [R, vocab] from every rank's [R, columns]."""
        if self.alone or not len(logits):
            return logits
        parts = self._heads.gather(logits).view(self._heads.size, *logits.shape)
        return parts.transpose(0, 1).flatten(1)[:, : self._vocab_size]
