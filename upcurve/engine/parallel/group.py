"""Ranks that talk: sums, gathers and broadcasts of tensors, over torch.distributed."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

# By these names from torch 2.13 on; the old ones warn there.
_gather: Any = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_add_up_part: Any = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


class Group:
    """Some ranks, of which this process is one; alone, every operation gives what it was given.

    All ranks of a group have to call the same operations in the same order, with tensors of the
    same shape and type.
    """

    def __init__(
        self,
        size: int = 1,
        index: int = 0,
        handle: dist.ProcessGroup | None = None,
        *,
        through_host: bool = False,
    ) -> None:
        """Take part.

        Args:
            size: ranks of the group.
            index: this one's place among them.
            handle: of torch.distributed; None where the rank is alone.
            through_host: tensors are on a GPU, and only their copies on the host can be sent.
        """
        self.size = size
        self.index = index
        self._handle = handle
        self._through_host = through_host

    @property
    def capturable(self) -> bool:
        """Whether a captured graph may hold these operations."""
        return self.size == 1 or not self._through_host

    def add_up(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum over all ranks: in place of x, which is contiguous, in its own type."""
        if self.size == 1:
            return x
        sent = self._sent(x)
        dist.all_reduce(sent, group=self._handle)
        return self._received(sent, x)

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """Return every rank's x [T, ...], one after the other: [size * T, ...]."""
        if self.size == 1:
            return x
        sent = self._sent(x)
        out = sent.new_empty(self.size * len(x), *x.shape[1:])
        _gather(out, sent, group=self._handle)
        return self._received(out, x.new_empty(0))

    def add_up_part(self, x: torch.Tensor) -> torch.Tensor:
        """Return this rank's part [T, ...] of the sum over all ranks of x [size * T, ...]."""
        if self.size == 1:
            return x
        sent = self._sent(x)
        out = sent.new_empty(len(x) // self.size, *x.shape[1:])
        _add_up_part(out, sent, group=self._handle)
        return self._received(out, x.new_empty(0))

    def from_first(self, x: torch.Tensor) -> torch.Tensor:
        """Return the first rank's x: in place of the own, which is contiguous."""
        if self.size == 1:
            return x
        sent = self._sent(x)
        dist.broadcast(sent, group=self._handle, group_src=0)
        return self._received(sent, x)

    def least(self, number: int, device: torch.device) -> int:
        """Return the least number of all ranks; waits for them all."""
        if self.size == 1:
            return number
        numbers = self.gather(torch.tensor([number], dtype=torch.int64, device=device))
        return int(numbers.min())

    def objects(self, mine: Any) -> list[Any]:
        """Return what each rank gives, which is pickled; waits for them all."""
        if self.size == 1:
            return [mine]
        found = [None] * self.size
        dist.all_gather_object(found, mine, group=self._handle)
        return found

    def _sent(self, x: torch.Tensor) -> torch.Tensor:
        return x.cpu() if self._through_host else x.contiguous()

    def _received(self, sent: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if not self._through_host:
            return sent
        return x.copy_(sent) if x.shape == sent.shape else sent.to(x.device)


class SilentGroup(Group):
    """As many ranks, none of which is there: results have the right shapes and no numbers."""

    def add_up(self, x: torch.Tensor) -> torch.Tensor:
        """Return x."""
        return x

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """Return memory for the result."""
        return x.new_empty(self.size * len(x), *x.shape[1:])

    def add_up_part(self, x: torch.Tensor) -> torch.Tensor:
        """Return memory for the result."""
        return x.new_empty(len(x) // self.size, *x.shape[1:])

    def from_first(self, x: torch.Tensor) -> torch.Tensor:
        """Return x."""
        return x
