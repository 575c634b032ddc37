"""The engine's source, changed for the length of a block."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest
import torch

from tests.engine.fidelity.planting import Edit, planted
from upcurve.engine.kernels import mixing, routing
from upcurve.engine.model import expert_layer

DOUBLED = Edit("kernels.mixing", "return mixed.squeeze(1)", "return 2 * mixed.squeeze(1)")
RESULTS, WEIGHTS = torch.ones(1, 2, 4), torch.ones(1, 2)


def test_who_holds_a_function_holds_the_changed_one_within_the_block_alone() -> None:
    with planted([DOUBLED]):
        assert expert_layer.mix(RESULTS, WEIGHTS).tolist() == [[4.0] * 4]
        assert sys.modules["upcurve.engine.kernels.mixing"] is not mixing
    assert expert_layer.mix(RESULTS, WEIGHTS).tolist() == [[2.0] * 4]
    assert expert_layer.mix is mixing.mix
    assert sys.modules["upcurve.engine.kernels.mixing"] is mixing


def test_who_holds_a_module_holds_the_changed_one() -> None:
    edit = Edit("kernels.routing", "    experts = logits.shape[1] - shared", "    raise OSError")
    with planted([edit]), pytest.raises(OSError):  # noqa: PT011
        expert_layer.routing.route(torch.zeros(1, 4), 2, shared=False)
    assert expert_layer.routing is routing


def test_a_kernel_is_changed_too() -> None:
    edit = Edit("kernels.mixing", "total += weight * tl.load", "total += 3 * weight * tl.load")
    with planted([edit]):
        changed = sys.modules["upcurve.engine.kernels.mixing"]
        assert changed.mix_in_one(RESULTS, WEIGHTS).tolist() == [[6.0] * 4]
    assert mixing.mix_in_one(RESULTS, WEIGHTS).tolist() == [[2.0] * 4]


def test_a_module_that_is_first_imported_within_the_block_does_not_keep_the_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "upcurve.engine.model.expert_layer"
    package = sys.modules["upcurve.engine.model"]
    # Both are given back after the test.
    monkeypatch.setattr(package, "expert_layer", expert_layer)
    monkeypatch.delitem(sys.modules, name)
    with planted([DOUBLED]):
        assert import_module(name).mix(RESULTS, WEIGHTS).tolist() == [[4.0] * 4]
    assert not hasattr(package, "expert_layer")
    assert import_module(name).mix is mixing.mix


def test_an_error_within_the_block_takes_the_change_back() -> None:
    with pytest.raises(KeyError), planted([DOUBLED]):
        raise KeyError
    assert expert_layer.mix is mixing.mix


@pytest.mark.parametrize("old", ["no such line", "results"])
def test_a_change_that_does_not_fit_once_is_refused(old: str) -> None:
    with (
        pytest.raises(LookupError, match=r"kernels\.mixing has"),
        planted([Edit("kernels.mixing", old, "")]),
    ):
        pass
