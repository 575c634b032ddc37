"""Which part of each checkpoint tensor a rank holds: pure functions of names and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from upcurve.engine.model.quantization import BLOCK_SIZE
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.parallel.layout import Share, part

BLOCK = BLOCK_SIZE[0]


@dataclass(frozen=True, slots=True)
class Cut:
    """The pieces that a rank holds along one dimension of a tensor."""

    dim: int
    size: int
    """Of the whole tensor."""
    pieces: tuple[tuple[int, int], ...]
    """Begin and end of each, in order; the rank's tensor is these, one after the other."""

    @property
    def held(self) -> int:
        """Size of what the rank holds."""
        return sum(end - begin for begin, end in self.pieces)

    def blocks(self) -> Cut:
        """Return the same cut of a tensor with one scale for each block."""
        pieces = tuple((begin // BLOCK, -(-end // BLOCK)) for begin, end in self.pieces)
        return Cut(self.dim, -(-self.size // BLOCK), pieces)


Cuts = tuple[Cut, ...]
"""Of one tensor, along different dimensions; none where a rank holds it whole."""


def take(tensor: torch.Tensor, cuts: Cuts) -> torch.Tensor:
    """Return a rank's part of a whole tensor: a view where it is one piece."""
    for cut in cuts:
        parts = [tensor.narrow(cut.dim, begin, end - begin) for begin, end in cut.pieces]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts, cut.dim)
    return tensor


def whole_shape(held: torch.Size, cuts: Cuts) -> torch.Size:
    """Return the shape of the whole tensor of which a rank holds `held`."""
    sizes = list(held)
    for cut in cuts:
        sizes[cut.dim] = cut.size
    return torch.Size(sizes)


class Sharding:
    """One rank's share of one model."""

    def __init__(self, shapes: ModelShapes, share: Share) -> None:
        self.whole = shapes
        """Of the whole model."""
        self.share = share
        heads, count = share.heads, shapes.num_key_value_heads
        self.shapes = (
            shapes
            if share.whole
            else replace(
                shapes,
                num_attention_heads=shapes.num_attention_heads // heads,
                # Where there are more ranks than key-value heads, several have the same one.
                num_key_value_heads=max(1, count // heads),
                linear_num_key_heads=shapes.linear_num_key_heads // heads,
                linear_num_value_heads=shapes.linear_num_value_heads // heads,
                moe_intermediate_size=shapes.moe_intermediate_size // share.widths,
                shared_expert_intermediate_size=shapes.shared_expert_intermediate_size
                // share.widths,
            )
        )
        """Heads and widths that this rank has; vocabulary and experts are the whole model's."""

    @property
    def experts(self) -> range:
        """The routed experts that the rank has."""
        return range(*part(self.whole.num_experts, self.share.expert, self.share.experts))

    @property
    def vocabulary_rows(self) -> int:
        """Rows of the embedding and of the head on every rank: the last ones may be padded."""
        return -(-self.whole.vocab_size // self.share.heads)

    @property
    def vocabulary(self) -> range:
        """The token ids whose rows the rank has."""
        size, rows = self.whole.vocab_size, self.vocabulary_rows
        begin = min(size, self.share.head * rows)
        return range(begin, min(size, begin + rows))

    def cuts(self, name: str) -> Cuts:
        """Return what the rank holds of a checkpoint tensor.

        Args:
            name: as in `weight_map`: without prefix, experts fused.
        """
        if self.share.whole:
            return ()
        return tuple(cut for cut in self._cuts(name.removesuffix(".weight")) if cut.held < cut.size)

    def _cuts(self, name: str) -> Iterator[Cut]:
        shapes, last = self.whole, name.rpartition(".")[2]
        queries = shapes.num_attention_heads * shapes.head_dim
        match last:
            case "embed_tokens" | "lm_head":
                mine = self.vocabulary
                yield Cut(0, shapes.vocab_size, ((mine.start, mine.stop),))
            case "q_proj":
                yield self._heads(0, 2 * queries)
            case "k_proj" | "v_proj":
                yield self._key_value_heads()
            case "o_proj":
                yield self._heads(1, queries)
            case "in_proj_qkv" | "conv1d":
                yield self._heads(0, shapes.key_dim, shapes.key_dim, shapes.value_dim)
            case "in_proj_z":
                yield self._heads(0, shapes.value_dim)
            case "in_proj_b" | "in_proj_a" | "A_log" | "dt_bias":
                yield self._heads(0, shapes.linear_num_value_heads)
            case "out_proj":
                yield self._heads(1, shapes.value_dim)
            case "gate_up_proj" | "down_proj" if ".experts." in f".{name}":
                mine = self.experts
                yield Cut(0, shapes.num_experts, ((mine.start, mine.stop),))
                width = shapes.moe_intermediate_size
                yield (
                    self._widths(1, width, width) if last != "down_proj" else self._widths(2, width)
                )
            case "gate_proj" | "up_proj":
                yield self._widths(0, shapes.shared_expert_intermediate_size)
            case "down_proj":
                yield self._widths(1, shapes.shared_expert_intermediate_size)

    def _heads(self, dim: int, *sizes: int) -> Cut:
        return _cut(dim, sizes, self.share.head, self.share.heads)

    def _widths(self, dim: int, *sizes: int) -> Cut:
        return _cut(dim, sizes, self.share.width, self.share.widths)

    def _key_value_heads(self) -> Cut:
        count, dim, share = self.whole.num_key_value_heads, self.whole.head_dim, self.share
        first = share.head * count // share.heads
        end = first + max(1, count // share.heads)
        return Cut(0, count * dim, ((first * dim, end * dim),))


def _cut(dim: int, sizes: tuple[int, ...], index: int, count: int) -> Cut:
    """Cut each of several blocks that lie one after the other by itself."""
    pieces, start = [], 0
    for size in sizes:
        begin, end = part(size, index, count)
        pieces.append((start + begin, start + end))
        start += size
    return Cut(dim, start, tuple(pieces))
