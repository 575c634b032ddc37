"""Which ranks write into each other's memory, and which models use it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from upcurve.engine.kernels.peers import Peers, box
from upcurve.engine.model.joining import reaches
from upcurve.engine.model.model import Model, load_model
from upcurve.engine.parallel.group import Group
from upcurve.engine.parallel.ranks import ALONE
from upcurve.engine.platform import HAS_TRITON
from upcurve.engine.switches import Switches

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
NEEDED = ["peer_memory", "fused_all_reduce", "fused_norm"]


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", None)


@pytest.mark.skipif(not HAS_TRITON, reason="no Triton")
@pytest.mark.usefixtures("nvidia")
def test_ranks_on_gpus_of_their_own_try_to_reach_each_other() -> None:
    assert reaches(Group(2), Switches(), GPU)


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.usefixtures("nvidia")
def test_not_where_an_optimisation_that_it_needs_is_off(name: str) -> None:
    assert not reaches(Group(2), Switches.without(name), GPU)


@pytest.mark.usefixtures("nvidia")
def test_not_alone_nor_through_the_host_nor_on_the_cpu() -> None:
    assert not reaches(Group(), Switches(), GPU)
    assert not reaches(Group(2, through_host=True), Switches(), GPU)
    assert not reaches(Group(2), Switches(), CPU)


def test_not_on_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "7")
    assert not reaches(Group(2), Switches(), GPU)


@pytest.mark.parametrize("off", ["", *NEEDED])
def test_a_model_has_the_memory_that_its_switches_need(tiny: Path, off: str) -> None:
    loaded = load_model(tiny, device=CPU, dtype=torch.float32, switches=Switches())
    assert loaded.peers is None
    peers = Peers.of(0, (box(1, 4, loaded.shapes.hidden_size, torch.float32, CPU),))
    model = Model(
        *(loaded.shapes, loaded.weights, Switches.without(off), torch.float32, ALONE, peers)
    )
    assert model.peers is (None if off else peers)
    assert model.first_layers(1).peers is model.peers
    assert len(model.first_layers(1).weights.layers) == 1 < len(model.weights.layers)
