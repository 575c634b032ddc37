"""Where ranks meet, and what they talk through."""

from __future__ import annotations

import os
from typing import Any

import pytest
from torch._C._distributed_c10d import HashStore

from upcurve.engine.errors import EngineInputError
from upcurve.engine.parallel import rendezvous
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.rendezvous import join, meet
from upcurve.engine.parallel.seat import Seat


def test_a_rendezvous_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "FIND_SECONDS", 0)
    with pytest.raises(EngineInputError, match=r"^rendezvous: a..b is not known here: "):
        meet(Seat(1, 2, host="a..b", port=5), Layout(2), gpu=False, lost=lambda _: None)


@pytest.mark.parametrize(("given", "expected"), [(None, "0"), ("1", "1")])
def test_nvlink_multicast_is_off_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    found: list[Any] = []

    def init(*_: Any, **__: Any) -> None:
        found.append(os.environ.get("NCCL_NVLS_ENABLE"))

    # What is set here is gone after the test, whatever it was before.
    monkeypatch.setenv("NCCL_NVLS_ENABLE", given or "")
    if given is None:
        monkeypatch.delenv("NCCL_NVLS_ENABLE")
    monkeypatch.setattr(rendezvous.dist, "init_process_group", init)
    join(HashStore(), Seat(0, 2), "nccl")
    assert found == [expected]
