"""Steps of all sizes, run before the first request: while one waits, no kernel is compiled."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from upcurve.engine.execute.device import NO_TOKEN
from upcurve.engine.kernels.sampling import draw
from upcurve.engine.kernels.sequences import Chunk
from upcurve.engine.memory.caches import Caches
from upcurve.engine.model.batch import ForwardBatch
from upcurve.engine.model.model import Model
from upcurve.engine.model.shapes import ModelShapes

BESIDE = 32
"""Tokens of the prompt beside which other sequences have one."""


@dataclass(frozen=True, slots=True)
class WarmUpStep:
    """So many sequences with one token each, and prompts of these lengths."""

    singles: int
    prompts: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Of the whole step."""
        return self.singles + sum(self.prompts)

    def batch(self, slot: int, device: torch.device) -> ForwardBatch:
        """Return it as a batch whose sequences all have one slot, which should be nobody's."""
        starts = [self.singles]
        for length in self.prompts:
            starts.append(starts[-1] + length)
        chunks = (
            Chunk(start, length, 0, slot)
            for start, length in zip(starts, self.prompts, strict=False)
        )
        positions = [*[0] * self.singles, *(i for length in self.prompts for i in range(length))]
        rows = [*range(self.singles), *(start - 1 for start in starts[1:])]
        ids = torch.zeros(self.tokens, dtype=torch.int64, device=device)
        return ForwardBatch(
            ids,
            torch.tensor(positions, device=device),
            torch.full_like(ids, slot),
            singles=self.singles,
            longest=1,
            chunks=tuple(chunks),
            logit_rows=torch.tensor(rows, device=device) if self.prompts else None,
        )


def warm_up_steps(*, max_batch_tokens: int, max_running_requests: int) -> list[WarmUpStep]:
    """Return steps in which every kernel takes all the forms that steps within these limits need.

    What is launched changes with the tokens of a step, its sequences, and how many of these have
    one token: each grows by itself, in steps of a third to a half, the largest first.
    """
    sizes = sorted({size << power for power in range(30) for size in (2, 3)} | {1}, reverse=True)
    some = [size for size in sizes if size <= max_running_requests]
    steps = [
        *(WarmUpStep(0, (size,)) for size in sizes[:-1]),
        *(WarmUpStep(size, (BESIDE,)) for size in some),
        *(WarmUpStep(0, (2,) * size) for size in some),
        *(WarmUpStep(size, ()) for size in some),
    ]
    return [step for step in steps if step.tokens <= max_batch_tokens]


def warm_up(
    model: Model, caches: Caches, *, max_batch_tokens: int, max_running_requests: int
) -> None:
    """Run the steps, in the slot and the page that are nobody's; wait until they have run."""
    device = caches.page_tables.device
    longest = caches.page_tables.shape[1] * caches.page_size
    model = model.first_layers(layers_of_each_kind(model.shapes))
    for step in warm_up_steps(
        max_batch_tokens=max_batch_tokens, max_running_requests=max_running_requests
    ):
        if max(step.prompts, default=1) <= longest:
            logits = model.forward(step.batch(caches.padding_slot, device), caches)
    # The last step is the smallest: one row.
    draw_in_all_ways(logits)
    torch.cuda.synchronize(device)


def draw_in_all_ways(logits: torch.Tensor) -> None:
    """Draw as greedy steps do, and as those do whose rows keep all tokens, few, many, or both."""
    numbers = torch.zeros(5, len(logits), dtype=torch.int64, device=logits.device)
    draw(logits, None, few=False, wide=False, no_token=NO_TOKEN)
    for few, wide in itertools.product((False, True), repeat=2):
        draw(logits, numbers, few=few, wide=wide, no_token=NO_TOKEN)


def layers_of_each_kind(shapes: ModelShapes) -> int:
    """Return how many of the first layers have all kinds that there are: kinds launch the same."""
    return 1 + max(shapes.layer_types.index(kind) for kind in set(shapes.layer_types))
