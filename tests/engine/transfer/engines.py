"""Caches of the ranks of two engines, filled with known bytes."""

from __future__ import annotations

import threading
from typing import Any

import torch

from tests.engine.transfer.described import TYPES, described, shapes_of
from upcurve.engine.memory.caches import Caches, CacheTypes
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.sharding import Sharding, take
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.transfer.receiver import Receiver
from upcurve.engine.transfer.sender import Part, Sender

PAGE_SIZE = 4


class Ranks:
    """One engine's caches, rank by rank; `whole` is what a single rank would have."""

    def __init__(
        self,
        tp: int,
        *,
        seed: int,
        types: CacheTypes = TYPES,
        shapes: ModelShapes | None = None,
        slots: int = 3,
        pages: int = 9,
    ) -> None:
        self.shapes = shapes or shapes_of()
        self.types, self.tp = types, tp
        self.sizes = {"slots": slots, "pages": pages}
        self.whole = self._empty(1, 0)
        generator = torch.Generator().manual_seed(seed)
        for tensor in (self.whole.kv, self.whole.recurrent, self.whole.convolution):
            # Any bytes, NaNs too: they are moved, not computed with.
            data = tensor.view(torch.uint8)
            data.copy_(torch.randint(256, data.shape, generator=generator, dtype=torch.uint8))
        self.caches = [self._empty(tp, rank) for rank in range(tp)]
        for rank, each in enumerate(self.caches):
            for mine, part in zip(
                (each.kv, each.recurrent, each.convolution), self.shard(rank), strict=True
            ):
                mine.view(torch.uint8).copy_(part.contiguous().view(torch.uint8))
        self.description = described(types, shapes=self.shapes, tp=tp, page_size=PAGE_SIZE)

    def _empty(self, tp: int, rank: int) -> Caches:
        shapes = Sharding(self.shapes, Layout(tp).share(rank)).shapes
        return Caches(
            *(shapes, self.types),
            **self.sizes,
            page_size=PAGE_SIZE,
            pages_per_request=4,
            device=torch.device("cpu"),
        )

    def shard(self, rank: int) -> tuple[torch.Tensor, ...]:
        """What a rank has of `whole`, cut as the loader cuts the weights that make it."""
        sharding = Sharding(self.shapes, Layout(self.tp).share(rank))
        dim = self.shapes.head_dim
        kv = take(self.whole.kv.flatten(4), _along(4, sharding.cuts("k_proj.weight")))
        heads = take(self.whole.recurrent, _along(2, sharding.cuts("A_log")))
        rings = take(self.whole.convolution, _along(3, sharding.cuts("conv1d.weight")))
        return kv.unflatten(4, (-1, dim)), heads, rings

    def check(self) -> None:
        """Check that every rank has what `whole` has, byte by byte."""
        for rank, each in enumerate(self.caches):
            mine = (each.kv, each.recurrent, each.convolution)
            for here, wanted in zip(mine, self.shard(rank), strict=True):
                assert torch.equal(
                    here.contiguous().view(torch.uint8), wanted.contiguous().view(torch.uint8)
                )

    def expect(self, source: Ranks, part: Part, *, tokens: int, states: bool = True) -> None:
        """Change `whole` to what it has to be once a transfer is done."""
        for position in range(tokens):
            here = part.pages[position // PAGE_SIZE], position % PAGE_SIZE
            there = part.remote_pages[position // PAGE_SIZE], position % PAGE_SIZE
            self.whole.kv[:, :, *there] = source.whole.kv[:, :, *here]
        if states:
            for mine, other in (
                (self.whole.recurrent, source.whole.recurrent),
                (self.whole.convolution, source.whole.convolution),
            ):
                mine[:, part.remote_slot] = other[:, part.slot]


def _along(dim: int, cuts: Any) -> Any:
    from dataclasses import replace

    return tuple(replace(cut, dim=dim) for cut in cuts)


class Reports:
    """What `finished` was called with."""

    def __init__(self) -> None:
        self.errors: dict[str, list[str | None]] = {}
        self._changed = threading.Condition()

    def __call__(self, transfer: str, error: str | None) -> None:
        with self._changed:
            self.errors.setdefault(transfer, []).append(error)
            self._changed.notify_all()

    def wait(self, transfer: str, count: int = 1) -> list[str | None]:
        """Return what was said of a transfer, once it was said so often."""
        with self._changed:
            found = self._changed.wait_for(lambda: len(self.errors.get(transfer, ())) >= count, 60)
        assert found, f"nothing is said of {transfer}"
        return self.errors[transfer]


class Pair:
    """Two engines in this process, connected."""

    def __init__(self, source: Ranks, target: Ranks, transport: Any = "tcp") -> None:
        self.source, self.target, self.reports = source, target, Reports()
        self.receivers = [
            Receiver(caches, PAGE_SIZE, rank, "127.0.0.1", transport)
            for rank, caches in enumerate(target.caches)
        ]
        self.senders = [
            Sender(caches, source.description, rank, self.reports)
            for rank, caches in enumerate(source.caches)
        ]
        self.connect("one", transport)

    def connect(self, session: str, transport: Any) -> None:
        offers = [receiver.offer() for receiver in self.receivers]
        for sender in self.senders:
            ways = sender.connect(session, self.target.description, offers, transport)
            assert ways
            assert set(ways) == {transport}

    def send(self, *parts: Part) -> None:
        """One step of every source rank, whose layers are computed one by one."""
        for sender in self.senders:
            outgoing = sender.step(parts)
            if outgoing is not None:
                for layer in range(self.source.shapes.num_layers):
                    outgoing.after(layer)

    def close(self) -> None:
        for sender in self.senders:
            sender.close()
        for receiver in self.receivers:
            receiver.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
