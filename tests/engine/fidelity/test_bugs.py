"""Every planted bug is caught, and nothing is where none is planted: the checks bite."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.fidelity.bugs import BUGS, Bug
from tests.engine.fidelity.interpreted import MODULES, interpreted
from tests.engine.fidelity.planting import planted
from upcurve.engine.fidelity.check import Format, Limits, Reference, Steps, load
from upcurve.engine.fidelity.divergence import Divergence
from upcurve.engine.fidelity.forced import Passage
from upcurve.engine.model.checkpoint import small_config, write_checkpoint
from upcurve.engine.switches import Switches

CPU = torch.device("cpu")
FORMATS = {"fp32": Format("fp32"), "bf16": Format("bf16"), "fp8": Format("bf16", "fp8")}
VOCABULARY = 200
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "num_experts": 32,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "max_position_embeddings": 256,
}
FEWER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "full_attention_interval": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
}
"""What the interpreter is given: it takes a millisecond for each program."""
PASSAGES = {
    None: [(1, 8), (40, 8), (7, 8), (65, 8)],
    "routing": [(9, 3), (1, 2)],
    "norms": [(9, 3), (1, 2)],
    # One that is longer than a tile: two splits have tokens.
    "attention": [(130, 2), (3, 2)],
    "delta rule": [(20, 3), (9, 3)],
}
"""By what is interpreted: tokens of each prompt and its output."""
STEPS: dict[str | None, Steps] = {
    None: Steps(step_tokens=24, requests=2),
    "attention": Steps(step_tokens=80, requests=2),
    # One after the other in one slot, in chunks.
    "delta rule": Steps(step_tokens=12, requests=1),
}
Measure = Callable[[str, str | None, Bug | None], tuple[Divergence, Limits]]


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """Return what measures a format, on kernels of one kind, with a bug: and its limits."""

    @cache
    def folder(kernels: str | None) -> Path:
        name = tmp_path_factory.mktemp("model")
        sizes = SIZES if kernels is None else SIZES | FEWER
        write_checkpoint(name, small_config(**sizes), seed=3)
        return name

    @cache
    def limits(form: str, kernels: str | None) -> tuple[Reference, Limits]:
        reference = Reference.of(folder(kernels), passages(kernels), CPU, FORMATS[form])
        rounding = reference.rounding(load(folder(kernels), CPU, FORMATS[form]))
        return reference, Limits.over(rounding)

    def measured(form: str, kernels: str | None, bug: Bug | None) -> tuple[Divergence, Limits]:
        reference, limit = limits(form, kernels)
        steps = STEPS.get(kernels, STEPS[None])
        with ExitStack() as stack:
            stack.enter_context(planted(bug.edits if bug else ()))
            if kernels is not None:
                stack.enter_context(interpreted(kernels))
            model = load(folder(kernels), CPU, FORMATS[form])
            return reference.measure(model, Switches(), steps), limit

    return measured


def passages(kernels: str | None) -> dict[str, Passage]:
    draw = random.Random(1)

    def ids(count: int) -> list[int]:
        return [draw.randrange(VOCABULARY) for _ in range(count)]

    return {f"{a}+{b}": Passage(ids(a), ids(b)) for a, b in PASSAGES[kernels]}


def names(value: Any) -> str | None:
    return value.name if isinstance(value, Bug) else None


@pytest.mark.parametrize("form", FORMATS)
def test_torch_without_a_bug_is_within_the_limits(measure: Measure, form: str) -> None:
    found, limits = measure(form, None, None)
    assert limits.passed(found), (found, limits)


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.torch], ids=names)
def test_divergence_catches_it_in_torch(measure: Measure, bug: Bug) -> None:
    found, limits = measure(bug.formats[0], None, bug)
    assert not limits.passed(found), (found, limits)


@pytest.mark.parametrize(
    ("kernels", "form"), [*((each, "fp32") for each in MODULES), ("routing", "bf16")]
)
def test_kernels_without_a_bug_are_within_the_limits(
    measure: Measure, kernels: str, form: str
) -> None:
    found, limits = measure(form, kernels, None)
    assert limits.passed(found), (found, limits)


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.kernels], ids=names)
def test_divergence_catches_it_in_kernels(measure: Measure, bug: Bug) -> None:
    found, limits = measure(bug.formats[0], bug.kernels, bug)
    assert not limits.passed(found), (found, limits)


def test_after_a_bug_the_engine_is_as_it_was(measure: Measure) -> None:
    before, _ = measure("fp32", None, None)
    for bug in BUGS:
        with planted(bug.edits):
            pass
    after, _ = measure("fp32", None, None)
    assert after == before
