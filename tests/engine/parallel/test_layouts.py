"""Every layout gives the tokens of one rank: ranks as processes over gloo, float32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.model.oracle import tiny_config
from tests.engine.parallel.generation import generate
from upcurve.engine.build import build_engine
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.fidelity.pool import RankPool
from upcurve.engine.schedule.request import Request, SamplingParameters

# A machine with few cores switches between eight ranks for every sum.
pytestmark = pytest.mark.timeout(600)
GREEDY = SamplingParameters(max_tokens=6, temperature=0, ignore_eos=True)
SEEDED = SamplingParameters(max_tokens=6, temperature=1, seed=3, top_k=20, ignore_eos=True)
SAMPLINGS = [GREEDY, SEEDED, GREEDY]
OPTIONS = EngineOptions(
    device="cpu",
    dtype="fp32",
    load_format="dummy",
    max_running_requests=3,
    context_length=64,
    max_batch_tokens=16,
    page_size=8,
    check_memory=True,
    threads=1,
)
LAYOUTS = [(2, 1, 1), (4, 1, 1), (8, 1, 1), (2, 2, 1), (8, 4, 1), (8, 8, 1), (1, 2, 2), (2, 4, 2)]
"""tp, ep, dp."""


def write_config(folder: Path, **changes: Any) -> Path:
    """Write a config.json of sizes that eight ranks can share."""
    sizes = {
        "num_hidden_layers": 2,
        "full_attention_interval": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "linear_num_key_heads": 8,
        "linear_num_value_heads": 16,
        "num_experts": 16,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
        "vocab_size": 301,
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tiny_config(**{**sizes, **changes})))
    return folder


def expected(folder: Path, options: EngineOptions, prompts: list[list[int]]) -> list[list[int]]:
    engine = build_engine(folder, replace(options, tp=1, ep=1, dp=1))
    requests = [
        Request(str(number), prompt, sampling)
        for number, (prompt, sampling) in enumerate(zip(prompts, SAMPLINGS, strict=False))
    ]
    for request in requests:
        engine.add(request)
    while engine.has_work:
        engine.step()
    return [request.output for request in requests]


def draw_prompts(seed: int, lengths: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(301, (length,), generator=generator).tolist() for length in lengths]


def check(
    pool: RankPool, folder: Path, layout: tuple[int, int, int], off: str, seed: int, lengths: Any
) -> None:
    tp, ep, dp = layout
    options = replace(OPTIONS, tp=tp, ep=ep, dp=dp, off=off, seed=seed)
    # The last replica has less to do, or nothing.
    prompts = [draw_prompts(seed + each, lengths[: len(lengths) - each]) for each in range(dp)]
    got = pool.call(generate, folder, options, prompts, SAMPLINGS)
    leaders = range(0, options.layout.engine_ranks, tp)
    for leader, mine in zip(leaders, prompts, strict=True):
        assert got[leader] == expected(folder, options, mine)
    assert all(got[rank] is None for rank in range(8) if rank not in leaders)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout(pool: RankPool, tmp_path: Path, layout: tuple[int, int, int]) -> None:
    check(pool, write_config(tmp_path), layout, "", 1, [20, 5, 1])


@settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    layout=st.sampled_from([(2, 1, 1), (2, 2, 1), (4, 2, 1), (4, 4, 1), (1, 2, 2)]),
    off=st.sampled_from(
        ["", "fused_all_reduce", "shared_expert_fusion", "fused_topk,grouped_experts", "all"]
    ),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    seed=st.integers(0, 99),
    sizes=st.fixed_dictionaries(
        {
            "num_key_value_heads": st.sampled_from([1, 2, 4]),
            "linear_num_value_heads": st.sampled_from([8, 24]),
            "shared_expert_intermediate_size": st.sampled_from([24, 8]),
            "tie_word_embeddings": st.booleans(),
            "num_experts_per_tok": st.integers(1, 4),
        }
    ),
)
def test_shapes_prompts_and_switches(
    pool: RankPool,
    tmp_path: Path,
    layout: tuple[int, int, int],
    off: str,
    lengths: list[int],
    seed: int,
    sizes: dict[str, Any],
) -> None:
    check(pool, write_config(tmp_path, **sizes), layout, off, seed, lengths)


@pytest.mark.parametrize("off", ["", "shared_expert_fusion"])
def test_a_shared_expert_that_every_expert_rank_counts_whole_is_found(
    pool: RankPool, tmp_path: Path, off: str
) -> None:
    folder, prompts = write_config(tmp_path), draw_prompts(5, [8, 3])
    options = replace(OPTIONS, tp=4, ep=4, off=off)
    once = pool.call(generate, folder, options, [prompts], SAMPLINGS)[0]
    often = pool.call(generate, folder, options, [prompts], SAMPLINGS, 1.0)[0]
    assert once == expected(folder, options, prompts) != often


@pytest.mark.parametrize("layout", [(2, 1, 1), (4, 2, 1), (1, 2, 2)])
def test_fp8_blocks_are_those_of_one_rank(
    pool: RankPool, tmp_path: Path, layout: tuple[int, int, int]
) -> None:
    sizes = {"head_dim": 128, "num_attention_heads": 4, "num_experts": 4, "num_experts_per_tok": 2}
    linear = {"linear_key_head_dim": 128, "linear_value_head_dim": 128}
    heads = {"linear_num_key_heads": 4, "linear_num_value_heads": 8}
    widths = {"moe_intermediate_size": 256, "shared_expert_intermediate_size": 256}
    folder = write_config(tmp_path, **sizes, **linear, **heads, **widths)
    tp, ep, dp = layout
    options = replace(OPTIONS, tp=tp, ep=ep, dp=dp, quantization="fp8")
    prompts = [draw_prompts(each, [12, 3]) for each in range(dp)]
    got = pool.call(generate, folder, options, prompts, SAMPLINGS)
    for replica, mine in enumerate(prompts):
        assert got[replica * tp] == expected(folder, options, mine)
