"""How a model is spread over GPUs: replicas of attention, and what each rank has of a replica."""

from __future__ import annotations

from dataclasses import dataclass

from upcurve.engine.errors import EngineInputError


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of the three ways in which a model is spread.

    A rank is one process with one GPU. `tp` ranks share the heads of a replica; `dp` replicas have
    requests of their own. Experts are shared by `ep` groups of ranks, each of which has some of
    them whole or, where `ep` is less than the ranks that are summed, in parts.
    """

    tp: int = 1
    """Tensor parallelism: ranks that share the heads."""
    ep: int = 1
    """Expert parallelism: groups that share the experts. It divides `tp`; or it is `tp * dp`, and
    the experts are shared by all replicas (data-parallel attention)."""
    dp: int = 1
    """Data parallelism: replicas of attention."""

    def __post_init__(self) -> None:
        """Check that the sizes go together.

        Raises:
            EngineInputError: they do not; it names the size and those that would do.
        """
        for name in ("tp", "ep", "dp"):
            if getattr(self, name) < 1:
                raise EngineInputError(
                    name, f"{getattr(self, name)} is no number of ranks", "give 1 or more"
                )
        if self.tp % self.ep and self.ep != self.ranks:
            fits = [str(size) for size in range(1, self.tp + 1) if self.tp % size == 0]
            fits += [str(self.ranks)] if self.dp > 1 else []
            raise EngineInputError(
                "ep",
                f"{self.ep} does not divide tp {self.tp}",
                f"give {' or '.join(dict.fromkeys(fits))}",
            )

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.tp * self.dp

    @property
    def joined(self) -> bool:
        """Whether replicas share their experts, so that each step is one of all replicas."""
        return self.dp > 1 and self.ep == self.ranks

    @property
    def engine_ranks(self) -> int:
        """Ranks that compute together: those of one replica, or all where experts are shared."""
        return self.ranks if self.joined else self.tp

    def share(self, rank: int) -> Share:
        """Return what a rank has; `rank` counts within those that compute together."""
        inside, experts = rank % self.tp, self.engine_ranks
        # Ranks of one expert group lie side by side.
        width = experts // self.ep
        return Share(inside, self.tp, rank // width, self.ep, rank % width, width)


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank has of a model: part `head` of `heads` of the attention, and of the experts."""

    head: int = 0
    heads: int = 1
    """Parts of attention, Gated DeltaNet and vocabulary."""
    expert: int = 0
    experts: int = 1
    """Parts of the list of experts."""
    width: int = 0
    widths: int = 1
    """Parts of each expert's inner width."""

    @property
    def whole(self) -> bool:
        """Whether it is everything."""
        return self.heads == self.experts == self.widths == 1

    @property
    def shared_scale(self) -> float:
        """What the shared expert counts on this rank: every part of the experts has it whole."""
        return 1.0 / self.experts


WHOLE = Share()


def part(size: int, index: int, count: int) -> tuple[int, int]:
    """Return the bounds of part `index` of `count` equal parts of `size`."""
    each = size // count
    return index * each, (index + 1) * each
