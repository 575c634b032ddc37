"""What is computed with FP8 weights."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.model.fp8.small import (
    LAYER,
    Tensors,
    content,
    dequantized,
    exact,
    fp8_config,
    load,
    relative,
    run,
    save,
)
from tests.engine.model.oracle import tiny_config
from upcurve.engine.kernels import block_scaled
from upcurve.engine.model.checkpoint import write_checkpoint
from upcurve.engine.model.model import Model
from upcurve.engine.model.weight_map import weight_map
from upcurve.engine.switches import Switches


def test_logits_are_those_of_the_dequantised_weights(model: Model) -> None:
    error = relative(run(model), run(dequantized(model)))
    # Activations of 3 bits of mantissa are 2**-4 / sqrt(3) off, in every product on the way; where
    # two experts nearly tie, a token goes another way.
    assert error.median() < 0.08
    assert error.mean() < 0.12


def test_every_product_is_exactly_that_of_rounded_activations(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: dict[str, list[float]] = {}

    def product(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        quantized, scales = block_scaled.quantize_rows(x)
        rounded = quantized.double() * scales.double()[:, torch.arange(x.shape[1]) // 128]
        return torch.einsum("rk,...nk->...rn", rounded, exact(weight, scale))

    def grouped(
        x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, ends: torch.Tensor
    ) -> torch.Tensor:
        rows = torch.arange(len(x))
        group = torch.searchsorted(ends, rows, right=True)
        return product(x, weight, scale)[group, rows]

    def watch(name: str, oracle: Callable[..., torch.Tensor]) -> None:
        """Hold each call against the oracle for the same operands: what is rounded is the same."""
        real = getattr(block_scaled, name)

        def watched(*operands: Any) -> torch.Tensor:
            got: torch.Tensor = real(*operands)
            error = relative(got.double(), oracle(*(each for each in operands if each is not None)))
            errors.setdefault(name, []).append(float(error.max()))
            return got

        monkeypatch.setattr(block_scaled, name, watched)

    watch("linear", product)
    watch("linear_shares", product)
    watch("grouped_reference", grouped)
    run(model)
    assert errors.keys() == {"linear", "linear_shares", "grouped_reference"}
    assert all(error < 1e-5 for each in errors.values() for error in each)


@pytest.mark.parametrize("shared", [128, 140])
def test_all_combinations_of_switches_agree(shared: int, tmp_path: Path) -> None:
    config = fp8_config(shared_expert_intermediate_size=shared)
    write_checkpoint(tmp_path, config, seed=2, quantization="fp8")
    model = load(tmp_path)
    want = run(model)
    # Each way to reach the weights, with all else on and with all else off.
    ways = ["grouped_experts", "shared_expert_fusion", "fused_projections"]
    others = [name for name in Switches.names() if name not in ways]
    for *values, rest in product([True, False], repeat=len(ways) + 1):
        chosen = [name for name, on in zip(ways, values, strict=True) if not on]
        off = ",".join(chosen + ([] if rest else others))
        other = Model(model.shapes, model.weights, Switches.without(off), model.dtype)
        error = relative(run(other), want)
        # Rounding may send an activation to the next number of 3 bits.
        assert error.median() < 5e-3, off
        assert error.max() < 0.05, off


def test_bfloat16_activations(whole: Path, model: Model) -> None:
    rough = load(whole, dtype=torch.bfloat16)
    assert rough.weights.embedding.dtype == torch.bfloat16
    error = relative(run(rough), run(model))
    assert error.median() < 0.1


@pytest.mark.parametrize("scale", [1e-23, 0.0])
def test_dead_experts_give_no_nan(
    tmp_path: Path, tensors: Tensors, config: dict[str, Any], scale: float
) -> None:
    for expert in range(4):
        for kind in ("gate", "up", "down"):
            name = f"{LAYER}mlp.experts.{expert}.{kind}_proj.weight_scale_inv"
            tensors[name] = torch.full_like(tensors[name], scale)
    dead = load(save(tmp_path, tensors, config))
    for off in ("", "grouped_experts"):
        switched = Model(dead.shapes, dead.weights, Switches.without(off), dead.dtype)
        assert run(switched).isfinite().all()


@settings(max_examples=8)
@given(
    hidden=st.integers(3, 20).map(lambda each: each * 8),
    width=st.sampled_from([20, 64, 128, 130]),
    shared=st.sampled_from([20, 64, 128]),
    head=st.sampled_from([8, 16, 24]),
    value_heads=st.sampled_from([2, 4]),
    seed=st.integers(0, 9),
)
def test_sizes_that_fill_no_block(
    tmp_path_factory: pytest.TempPathFactory,
    hidden: int,
    width: int,
    shared: int,
    head: int,
    value_heads: int,
    seed: int,
) -> None:
    changes = {
        "hidden_size": hidden,
        "moe_intermediate_size": width,
        "shared_expert_intermediate_size": shared,
        "head_dim": head,
        "linear_num_value_heads": value_heads,
        "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "full_attention"],
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5},
    }
    folder = tmp_path_factory.mktemp("sizes")
    write_checkpoint(folder / "plain", tiny_config(**changes), seed=seed)
    write_checkpoint(folder / "fp8", tiny_config(**changes), seed=seed, quantization="fp8")
    plain = load(folder / "plain")
    source = weight_map(plain.weights)
    for model in (load(folder / "fp8"), load(folder / "plain", quantization="fp8")):
        for name, target in weight_map(dequantized(model).weights).items():
            # Up to three times rounded to 3 bits, where parts share a block.
            bound = 0.2 * source[name].abs() + 2e-3 * source[name].abs().max()
            assert ((target - source[name]).abs() <= bound).all(), name
        other = Model(model.shapes, model.weights, Switches.without("all"), model.dtype)
        assert relative(run(other), run(model)).median() < 0.02


def test_dummy_weights_in_fp8_behave_like_plain_ones(plain: Path) -> None:
    options = {"load_format": "dummy", "seed": 1}
    narrow, wide = load(plain, quantization="fp8", **options), load(plain, **options)
    for each in content(narrow).values():
        assert each.isfinite().all()
    assert relative(run(narrow), run(wide)).median() < 0.2
    assert 0.3 < run(narrow).std() < 3
