"""One rank among those that compute together: its share, and the groups that it talks in."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist

from upcurve.engine.parallel.group import Group, SilentGroup
from upcurve.engine.parallel.layout import WHOLE, Layout, Share


@dataclass(frozen=True, slots=True)
class Ranks:
    """What a model, its runner and its engine need to know of the other ranks."""

    layout: Layout
    rank: int
    share: Share
    heads: Group
    """The ranks that share a replica's heads; what they compute is summed."""
    replicas: Group
    """The ranks with the same heads of all replicas that share their experts."""

    @property
    def leads(self) -> bool:
        """Whether this rank schedules and draws for its replica."""
        return self.heads.index == 0

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.heads.size == self.replicas.size == 1

    @property
    def capturable(self) -> bool:
        """Whether a step may be a captured graph."""
        return self.heads.capturable and self.replicas.capturable

    @classmethod
    def absent(cls, layout: Layout) -> Ranks:
        """Return the first rank of a layout without the others: for shapes, not for numbers."""
        replicas = layout.dp if layout.joined else 1
        return cls(layout, 0, layout.share(0), SilentGroup(layout.tp), SilentGroup(replicas))

    @classmethod
    def of(cls, layout: Layout, rank: int, *, through_host: bool = False) -> Ranks:
        """Form the groups among the ranks of torch.distributed's default group; all have to call.

        Args:
            layout: whose `engine_ranks` the group has.
            rank: of this process.
            through_host: as `Group`.
        """
        tp = layout.tp
        replicas = layout.dp if layout.joined else 1
        heads = [list(range(each * tp, (each + 1) * tp)) for each in range(replicas)]
        same = [list(range(each, tp * replicas, tp)) for each in range(tp)]
        return cls(
            layout,
            rank,
            layout.share(rank),
            _group(heads, rank, through_host=through_host),
            _group(same, rank, through_host=through_host),
        )


def _group(members: list[list[int]], rank: int, *, through_host: bool) -> Group:
    """Return the group that a rank is in; each group is formed by all ranks, in order."""
    found = Group()
    for each in members:
        if len(each) == 1:
            continue
        handle = dist.new_group(each)
        if rank in each:
            found = Group(len(each), each.index(rank), handle, through_host=through_host)
    return found


ALONE = Ranks(Layout(), 0, WHOLE, Group(), Group())
