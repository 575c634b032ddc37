"""Parsing of the names that turn optimisations off."""

from __future__ import annotations

import pytest

from upcurve.engine.errors import EngineInputError
from upcurve.engine.switches import Switches

NAMES = [
    "grouped_experts",
    "shared_expert_fusion",
    "fused_topk",
    "fused_norm",
    "fused_all_reduce",
    "peer_memory",
    "fused_projections",
    "fused_query_key",
    "fused_recurrence",
    "paged_attention",
    "cuda_graphs",
    "host_overlap",
]


def test_all_are_on_by_default() -> None:
    assert Switches.names() == NAMES
    assert Switches().off() == []
    assert Switches.without("") == Switches.without(" , ") == Switches()


@pytest.mark.parametrize("name", NAMES)
def test_one_is_off_by_name(name: str) -> None:
    assert Switches.without(f" {name} ,").off() == [name]


def test_all_are_off() -> None:
    assert Switches.without("all").off() == NAMES
    assert Switches.without(",".join(reversed(NAMES))) == Switches.without("all")


@pytest.mark.parametrize(("off", "wrong"), [("fast", "fast"), ("fused_norm,All", "All")])
def test_an_unknown_name_is_an_error_that_lists_the_known(off: str, wrong: str) -> None:
    with pytest.raises(EngineInputError) as caught:
        Switches.without(off)
    assert str(caught.value) == (
        f"off: {wrong!r} is not a switch; give all or some of {', '.join(NAMES)}"
    )
