"""Small models of many shapes, run by this engine and by transformers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from upcurve.engine.kernels.sequences import Chunk
from upcurve.engine.memory.caches import Caches, CacheTypes
from upcurve.engine.memory.memory import Memory
from upcurve.engine.memory.reservation import Reservation
from upcurve.engine.model.batch import ForwardBatch
from upcurve.engine.model.checkpoint import small_config, write_checkpoint
from upcurve.engine.model.model import Model, load_model
from upcurve.engine.switches import Switches

CPU = torch.device("cpu")
VOCABULARY = 300
TOLERANCE = 1e-4
"""Largest difference of two float32 logits; they are of order one to ten."""


def tiny_config(**changes: Any) -> dict[str, Any]:
    """Return a config whose every size is small and differs from its neighbours."""
    return small_config(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 12,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "num_experts": 12,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 20,
            "shared_expert_intermediate_size": 20,
            "max_position_embeddings": 512,
            **changes,
        }
    )


def load(folder: Path, off: str = "", dtype: torch.dtype = torch.float32) -> Model:
    """Load a folder into this engine."""
    return load_model(folder, device=CPU, dtype=dtype, switches=Switches.without(off))


def load_transformers(folder: Path) -> Any:
    """Load a folder into transformers, in float32."""
    with warnings.catch_warnings():
        # Swig types of a dependency, and notes on optional kernels that a CPU has not.
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def transformers_logits(model: Any, ids: list[int]) -> torch.Tensor:
    """Return the logits [T, vocab] of one sequence, all at once.

    Fails where the last expert chosen and the first one passed over lie so near that rounding
    decides between them: such a draw compares nothing.
    """
    out = model(torch.tensor([ids]), output_router_logits=True)
    chosen = model.config.num_experts_per_tok
    for layer in out.router_logits:
        if layer.shape[-1] > chosen:
            best = layer.topk(chosen + 1).values
            assert (best[:, -2] - best[:, -1]).min() > 2e-6
    logits: torch.Tensor = out.logits[0]
    return logits


@dataclass(frozen=True, slots=True)
class Place:
    """Memory and the caches behind it."""

    memory: Memory
    caches: Caches


def new_memory(
    model: Model,
    *,
    requests: int = 4,
    tokens: int = 1024,
    page: int = 8,
    types: CacheTypes | None = None,
) -> Place:
    """Allocate memory for a few short sequences."""
    memory = Memory(max_running_requests=requests, token_capacity=tokens, page_size=page)
    pages = memory.usage().total_pages
    caches = Caches(
        model.shapes,
        types or CacheTypes(model.dtype, model.dtype),
        slots=requests,
        pages=pages,
        page_size=page,
        pages_per_request=pages,
        device=CPU,
    )
    return Place(memory, caches)


@dataclass(slots=True)
class Sequence:
    """One sequence on its way through a model."""

    ids: list[int]
    memory: Reservation
    done: int = 0


def reserve(place: Place, ids: list[int], tokens: int = 0) -> Sequence:
    """Start a sequence that may grow to `tokens`."""
    reservation = place.memory.reserve(max(len(ids), tokens))
    assert reservation is not None
    where, pages = place.caches.unwritten([reservation])
    place.caches.write_tables(torch.tensor(where), torch.tensor(pages))
    place.caches.clear(torch.tensor([reservation.slot]))
    return Sequence(list(ids), reservation)


def step(model: Model, place: Place, work: list[tuple[Sequence, int]]) -> list[torch.Tensor]:
    """Run the next tokens of some sequences in one forward; logits of every token, by sequence.

    Sequences with one token come first.
    """
    chunks: list[Chunk] = []
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    longest = 0
    for sequence, count in work:
        slot = sequence.memory.slot
        if count > 1:
            chunks.append(Chunk(len(ids), count, sequence.done, slot))
        else:
            longest = max(longest, sequence.done + 1)
        ids += sequence.ids[sequence.done : sequence.done + count]
        positions += range(sequence.done, sequence.done + count)
        slots += [slot] * count
        sequence.done += count
    batch = ForwardBatch(
        torch.tensor(ids),
        torch.tensor(positions),
        torch.tensor(slots),
        len(work) - len(chunks),
        longest,
        tuple(chunks),
        None,
    )
    logits = model.forward(batch, place.caches)
    return list(logits.split([count for _, count in work]))


def in_pieces(model: Model, memory: Place, ids: list[int], pieces: list[int]) -> torch.Tensor:
    """Return the logits of one sequence whose tokens come in pieces."""
    sequence = reserve(memory, ids)
    out = torch.cat([step(model, memory, [(sequence, count)])[0] for count in pieces])
    sequence.memory.release()
    return out


def greedy(model: Model, memory: Place, prompt: list[int], steps: int) -> list[int]:
    """Continue a prompt by the most likely token, one forward each."""
    sequence = reserve(memory, prompt, len(prompt) + steps)
    (logits,) = step(model, memory, [(sequence, len(prompt))])
    for _ in range(steps):
        sequence.ids.append(int(logits[-1].argmax()))
        (logits,) = step(model, memory, [(sequence, 1)])
    sequence.memory.release()
    return sequence.ids


def random_ids(count: int, seed: int) -> list[int]:
    """Draw token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (count,), generator=generator).tolist()


def write(folder: Path, seed: int = 1, **changes: Any) -> Path:
    """Write a tiny checkpoint."""
    write_checkpoint(folder, tiny_config(**changes), seed=seed)
    return folder
