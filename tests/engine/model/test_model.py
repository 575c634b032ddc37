"""The forward pass against transformers, and against itself in other arrangements."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tests.engine.model.oracle import (
    TOLERANCE,
    greedy,
    in_pieces,
    load,
    load_transformers,
    new_memory,
    random_ids,
    reserve,
    step,
    transformers_logits,
    write,
)
from upcurve.engine.kernels.sequences import Chunk
from upcurve.engine.model.batch import ForwardBatch
from upcurve.engine.model.model import Model
from upcurve.engine.switches import Switches

SHAPES: dict[str, dict[str, Any]] = {
    "delta ratio 1": {"linear_num_key_heads": 3, "linear_num_value_heads": 3},
    "delta ratio 2, attention ratio 1": {"num_attention_heads": 3, "num_key_value_heads": 3},
    "delta ratio 3, attention ratio 3": {
        "linear_num_value_heads": 6,
        "num_attention_heads": 6,
        "full_attention_interval": 3,
        "num_hidden_layers": 7,
    },
    "delta ratio 4, attention ratio 4": {
        "linear_num_value_heads": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "num_hidden_layers": 8,
    },
    "512 experts, 10 chosen": {
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 4,
        "shared_expert_intermediate_size": 4,
    },
    "shared expert larger": {"shared_expert_intermediate_size": 28},
    "shared expert smaller, all experts chosen": {
        "shared_expert_intermediate_size": 7,
        "num_experts": 5,
        "num_experts_per_tok": 5,
    },
    "tied, one key dimension for all, kernel 2": {
        "tie_word_embeddings": True,
        "linear_conv_kernel_dim": 2,
        "linear_value_head_dim": 8,
        "num_hidden_layers": 5,
    },
    "wide rotation, one attention layer only": {
        "layer_types": ["full_attention", "linear_attention", "linear_attention"],
        "num_hidden_layers": 3,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.5,
        },
    },
}
ON_A_GPU = ("fused_recurrence", "paged_attention", "cuda_graphs", "host_overlap")
"""Switches that change nothing in a forward pass on the CPU."""
ON_THE_CPU = [name for name in Switches.names() if name not in ON_A_GPU]
PROMPTS = (1, 7, 8, 9, 62, 64, 65, 131)
"""Prompt lengths at and beside a page (8) and a chunk of the delta rule (64)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder)


@pytest.mark.parametrize(("shape", "length"), zip(SHAPES, (*PROMPTS, 33), strict=True))
def test_logits_and_greedy_tokens_are_those_of_transformers(
    shape: str, length: int, tmp_path: Path
) -> None:
    write(tmp_path, seed=length, **SHAPES[shape])
    ours = load(tmp_path)
    memory = new_memory(ours)
    ids = greedy(ours, memory, random_ids(length, seed=length), steps=34)
    theirs = transformers_logits(load_transformers(tmp_path), ids)
    logits = in_pieces(ours, memory, ids, [length] + [1] * 34)
    torch.testing.assert_close(logits, theirs, atol=TOLERANCE, rtol=1e-4)
    # Each token that we chose is theirs too, but where two lie nearer than rounding.
    best = theirs[length - 1 : -1]
    chosen = best.gather(1, torch.tensor(ids[length:]).unsqueeze(1)).squeeze(1)
    assert (best.max(-1).values - chosen <= 2 * TOLERANCE).all()


def test_greedy_tokens_are_those_of_generate(folder: Path, model: Model) -> None:
    prompt = random_ids(21, seed=5)
    theirs = load_transformers(folder).generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        do_sample=False,
        max_new_tokens=40,
        min_new_tokens=40,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert greedy(model, new_memory(model), prompt, steps=40) == theirs[0].tolist()


@settings(max_examples=25)
@given(data=st.data())
def test_a_prompt_may_be_split_at_any_points(model: Model, data: st.DataObject) -> None:
    length = data.draw(st.integers(2, 150), "length")
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=5), "cuts"))
    pieces = [b - a for a, b in zip([0, *cuts], [*cuts, length], strict=True)]
    page = data.draw(st.sampled_from([1, 4, 16]), "page size")
    ids = random_ids(length, seed=length)
    whole = in_pieces(model, new_memory(model, page=page), ids, [length])
    split = in_pieces(model, new_memory(model, page=page), ids, pieces)
    torch.testing.assert_close(split, whole, atol=TOLERANCE, rtol=1e-4)


@settings(max_examples=15)
@given(data=st.data())
def test_a_mixed_batch_is_each_sequence_alone(model: Model, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 5), "sequences")
    memory = new_memory(model, requests=count)
    lengths = data.draw(st.lists(st.integers(1, 90), min_size=count, max_size=count), "lengths")
    everything = [random_ids(length, seed=index) for index, length in enumerate(lengths)]
    alone = [in_pieces(model, memory, ids, [len(ids)]) for ids in everything]
    sequences = [reserve(memory, ids) for ids in everything]
    got: list[list[torch.Tensor]] = [[] for _ in sequences]
    shares = iter(data.draw(st.lists(st.integers(0, 3), max_size=40), "shares"))
    while any(each.done < len(each.ids) for each in sequences):
        work = []
        for index, each in enumerate(sequences):
            left = len(each.ids) - each.done
            if left:
                # The first: the sequence sits this step out.
                taken = (0, 1, left // 2 + 1, left)[next(shares, 3)]
                if taken:
                    work.append((index, taken, taken == 1))
        if not work:
            continue
        work.sort(key=lambda entry: not entry[2])
        outs = step(model, memory, [(sequences[index], taken) for index, taken, _ in work])
        for (index, _, _), out in zip(work, outs, strict=True):
            got[index].append(out)
    for parts, want in zip(got, alone, strict=True):
        torch.testing.assert_close(torch.cat(parts), want, atol=TOLERANCE, rtol=1e-4)
    for each in sequences:
        each.memory.release()
    memory.memory.check()


def test_only_the_wanted_rows_have_logits(model: Model) -> None:
    memory, ids = new_memory(model), random_ids(20, seed=3)
    whole = in_pieces(model, memory, ids, [20])
    slot = reserve(memory, ids).memory.slot
    wanted = torch.tensor([19, 4])
    batch = ForwardBatch(
        torch.tensor(ids),
        torch.arange(20),
        torch.full((20,), slot),
        0,
        0,
        (Chunk(0, 20, 0, slot),),
        wanted,
    )
    logits = model.forward(batch, memory.caches)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, whole[wanted], atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("shared", [20, 13])
def test_all_combinations_of_switches_agree(shared: int, tmp_path: Path) -> None:
    write(tmp_path, shared_expert_intermediate_size=shared, num_hidden_layers=4)
    ids = random_ids(24, seed=9)
    want = None
    for values in product([True, False], repeat=len(ON_THE_CPU)):
        off = ",".join(name for name, on in zip(ON_THE_CPU, values, strict=True) if not on)
        model = load(tmp_path, off)
        got = in_pieces(model, new_memory(model), ids, [19, 1, 1, 3])
        want = got if want is None else want
        torch.testing.assert_close(got, want, atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("off", ["", "all"])
def test_bfloat16_is_close_to_float32(folder: Path, model: Model, off: str) -> None:
    ids = random_ids(60, seed=2)
    exact = in_pieces(model, new_memory(model), ids, [50] + [1] * 10)
    narrow = load(folder, off, torch.bfloat16)
    rough = in_pieces(narrow, new_memory(narrow), ids, [50] + [1] * 10)
    # bfloat16 has 8 bits; a near tie of two experts may send single tokens another way.
    error = (rough - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert error.median() < 0.05
    assert error.mean() < 0.12


def test_a_slot_that_was_used_before_shows_nothing_of_it(model: Model) -> None:
    fresh = in_pieces(model, new_memory(model, requests=1), random_ids(30, seed=1), [30])
    memory = new_memory(model, requests=1, tokens=96)
    for length in (96, 5):
        in_pieces(model, memory, random_ids(length, seed=length), [length])
        again = in_pieces(model, memory, random_ids(30, seed=1), [11, 1, 18])
        torch.testing.assert_close(again, fresh, atol=TOLERANCE, rtol=1e-4)
    assert memory.memory.usage().pages == 0


@pytest.mark.parametrize("left", [float("nan"), float("inf")])
def test_a_request_that_ended_in_nan_harms_no_later_one(model: Model, left: float) -> None:
    ids, pieces = random_ids(30, seed=1), [11, 1, 1, 17]
    fresh = in_pieces(model, new_memory(model), ids, pieces)
    memory = new_memory(model)
    earlier = memory.memory.reserve(1024)
    assert earlier is not None
    for cache in memory.caches.attention.values():
        cache.keys[earlier.pages] = left
        cache.values[earlier.pages] = left
    for state in memory.caches.linear.values():
        state.recurrent[earlier.slot] = left
        state.convolution[earlier.slot] = left
    earlier.release()
    torch.testing.assert_close(in_pieces(model, memory, ids, pieces), fresh, atol=0, rtol=0)


class Operations(TorchDispatchMode):
    """Keeps what is computed: the operation, and its arguments that are numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[Any, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        numbers = tuple(each for each in args if isinstance(each, (int, float)))
        self.seen.append((func.overloadpacket.__name__, numbers))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("off", ["", "fused_topk", "shared_expert_fusion", "all"])
def test_alone_the_shared_experts_weight_is_not_multiplied_by_one(off: str, folder: Path) -> None:
    model = load(folder, off=off)
    memory = new_memory(model)
    sequences = [reserve(memory, [each]) for each in (1, 2)]
    with Operations() as operations:
        step(model, memory, [(each, 1) for each in sequences])
    seen = operations.seen
    gates = [index for index, (name, _) in enumerate(seen) if name == "sigmoid"]
    assert len(gates) > len(model.weights.layers)
    # Its shape may be changed between.
    assert not any(("mul", (1.0,)) in seen[index : index + 3] for index in gates)
