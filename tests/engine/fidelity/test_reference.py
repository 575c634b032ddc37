"""The reference against transformers, and what is served against the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.engine.model.oracle import (
    TOLERANCE,
    load_transformers,
    random_ids,
    tiny_config,
    transformers_logits,
    write,
)
from upcurve.engine.errors import EngineInputError
from upcurve.engine.fidelity.check import (
    AMONG_RANKS,
    ON_A_GPU,
    Format,
    Limits,
    Reference,
    Steps,
    builds,
    load,
    switches_of,
)
from upcurve.engine.fidelity.divergence import Divergence
from upcurve.engine.fidelity.forced import ForcedEngine, Passage
from upcurve.engine.fidelity.reference import in_float32
from upcurve.engine.model.checkpoint import write_checkpoint
from upcurve.engine.model.weight_map import weight_map
from upcurve.engine.switches import Switches

CPU = torch.device("cpu")
FEW = Steps(step_tokens=20, requests=2)
FP32, BF16, FP8 = Format("fp32"), Format("bf16"), Format("bf16", "fp8")


def passage(prompt: int, output: int) -> Passage:
    ids = random_ids(prompt + output, seed=prompt)
    return Passage(ids[:prompt], ids[prompt:])


PASSAGES = {f"{prompt}": passage(prompt, 6) for prompt in (1, 30, 65, 3, 17)}
PASSAGES["one"] = passage(1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference.of(folder, PASSAGES, CPU, FP32)


def test_the_reference_is_transformers(folder: Path, reference: Reference) -> None:
    theirs = load_transformers(folder)
    for name, each in PASSAGES.items():
        wanted = transformers_logits(theirs, [*each.prompt, *each.output])
        wanted = wanted[len(each.prompt) - 1 : -1]
        torch.testing.assert_close(reference.logits[name], wanted, atol=TOLERANCE, rtol=1e-4)
        found = reference.against({**reference.logits, name: wanted})
        assert found.kl_max < 1e-8


def test_every_build_in_float32_is_within_the_limits(folder: Path, reference: Reference) -> None:
    model = load(folder, CPU, FP32)
    limits = Limits.over(reference.rounding(model))
    for name, switches in builds(switches_of(Switches.names(), gpu=False)).items():
        found = reference.measure(model, switches, FEW)
        assert limits.passed(found), name
        assert found.tokens == sum(len(each.output) for each in PASSAGES.values())
        assert found.perplexity == pytest.approx(reference.perplexity, rel=1e-5)


@pytest.mark.parametrize("form", [BF16, FP8], ids=["bf16", "fp8"])
def test_narrow_formats_lose_what_plain_torch_loses(
    folder: Path, reference: Reference, form: Format
) -> None:
    model = load(folder, CPU, form)
    rounding = reference.rounding(model)
    assert rounding.kl_mean > 1e-5
    limits = Limits.over(rounding)
    assert limits.passed(reference.measure(model, Switches(), FEW))


def test_an_fp8_checkpoint_is_multiplied_out(tmp_path: Path) -> None:
    # Parts that end inside a block share its scale.
    config = tiny_config(hidden_size=160, moe_intermediate_size=128)
    write_checkpoint(tmp_path, config, seed=2, quantization="fp8")
    plain = in_float32(load(tmp_path, CPU, FP32))
    table = weight_map(plain.weights)
    stored = load_file(tmp_path / "model.safetensors")
    name = "layers.0.mlp.experts.5.down_proj.weight"
    weight, scale = stored[f"model.{name}"], stored[f"model.{name}_scale_inv"]
    wide = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)
    rows, columns = weight.shape
    wanted = weight.float() * wide[:rows, :columns]
    assert torch.equal(table["layers.0.mlp.experts.down_proj"][5], wanted)
    assert not plain.weights.quantized
    assert plain.dtype == torch.float32
    norm = stored["model.layers.0.input_layernorm.weight"]
    assert torch.equal(table["layers.0.input_layernorm.weight"], norm)


def test_dummy_weights_are_those_of_the_format(folder: Path) -> None:
    form = Format("bf16", load_format="dummy", seed=4)
    reference = Reference.of(folder, {"a": passage(5, 4)}, CPU, form)
    # Weights of another precision are other draws, whose logits would have nothing in common.
    assert reference.rounding(load(folder, CPU, form)).kl_mean < 0.05


def test_a_forced_request_goes_on_where_it_gave_its_memory_back(
    folder: Path, reference: Reference
) -> None:
    options = {"step_tokens": 20, "requests": 4, "context": 80, "page_size": 4}
    engine = ForcedEngine.of(load(folder, CPU, FP32), CPU, max_kv_tokens=88, **options)
    found = reference.against(engine.logits(PASSAGES))
    assert engine.engine.preemptions > 0
    assert found.kl_max < 1e-8


def test_what_is_not_forced_is_the_most_likely(folder: Path) -> None:
    engine = ForcedEngine.of(load(folder, CPU, FP32), CPU, step_tokens=20, requests=2, context=80)
    prompt = random_ids(9, seed=0)
    logits, tokens = engine.run({"free": (prompt, None)}, 5)["free"]
    assert tokens == logits.argmax(-1).tolist()
    again, forced = engine.run({"told": (prompt, tokens)}, 5)["told"]
    assert forced == tokens
    assert torch.equal(again, logits)


def test_builds_of_switches() -> None:
    named = builds(["fused_norm", "fused_topk"])
    off = {name: switches.off() for name, switches in named.items()}
    assert off["all on"] == []
    assert off["fused_norm off"] == ["fused_norm"]
    assert set(Switches.names()) - set(off["fused_topk alone"]) == {"fused_topk"}
    assert off["all off"] == Switches.names()
    assert len(named) == 6


def test_switches_that_a_device_has_no_use_for_are_left_out() -> None:
    everywhere = [name for name in Switches.names() if name not in AMONG_RANKS]
    assert switches_of(Switches.names(), gpu=True) == everywhere
    assert set(AMONG_RANKS) == {"fused_all_reduce", "peer_memory"}
    assert switches_of(["fused_all_reduce", "fused_norm"], gpu=True) == ["fused_norm"]
    on_a_cpu = [name for name in everywhere if name not in ON_A_GPU]
    assert switches_of(Switches.names(), gpu=False) == on_a_cpu
    with pytest.raises(EngineInputError, match="'fast' is not a switch"):
        switches_of(["fused_norm", "fast"], gpu=True)


def test_limits_follow_from_rounding() -> None:
    lost = Divergence(400, 0.01, 0.001, 0.1, 0.2, "a", 0.02, 0.9, 5.0)
    limits = Limits.over(lost)
    assert limits.kl == pytest.approx(0.015 + 0.003, rel=1e-5)
    # Three standard errors of 0.9 of 400 tokens, and a hundredth.
    assert limits.agreement == pytest.approx(0.9 - 0.01 - 3 * 0.015)
    assert limits.passed(lost)
    worse = Divergence(400, 0.0181, 0.001, 0.1, 0.2, "a", 0.02, 0.9, 5.0)
    fewer = Divergence(400, 0.01, 0.001, 0.1, 0.2, "a", 0.02, 0.8, 5.0)
    assert not limits.passed(worse)
    assert not limits.passed(fewer)
