"""What ranks were told: all alike, or an error of all of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from torch._C._distributed_c10d import HashStore, Store

from tests.engine.parallel.test_layouts import OPTIONS
from tests.engine.quick_processes import quick_processes
from upcurve.engine.build import build_engine, build_follower
from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.fidelity.pool import Place, RankPool
from upcurve.engine.model.checkpoint import small_config, write_checkpoint
from upcurve.engine.parallel import agreement
from upcurve.engine.parallel.agreement import agree
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.seat import Seat

LONG, NOW = timedelta(minutes=5), timedelta(0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_LAST_SECONDS", 0)


def words(seats: Sequence[Seat], told: Sequence[dict[str, str]]) -> list[str]:
    """Return what each rank says, all at once; "" where it agrees."""
    store = HashStore()

    def run(number: int) -> str:
        try:
            agree(store, seats[number], told[number], LONG)
        except EngineInputError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(seats)) as threads:
        return list(threads.map(run, range(len(seats))))


def test_ranks_that_were_told_the_same_agree() -> None:
    told = {"tp": "3", "off": ""}
    assert words([Seat(rank, 3) for rank in range(3)], [dict(told) for _ in range(3)]) == [""] * 3


def test_every_rank_says_what_differs() -> None:
    told = [{"page_size": "16", "off": ""}, {"page_size": "16", "off": "fused_norm"}]
    expected = "off: nothing at rank 0, fused_norm at rank 1; start all nodes with the same options"
    assert words([Seat(0, 2), Seat(1, 2)], told) == [expected] * 2
    told[1] = {"page_size": "8", "off": "fused_norm"}
    expected = "page-size: 16 at rank 0, 8 at rank 1; start all nodes with the same options"
    assert words([Seat(0, 2), Seat(1, 2)], told) == [expected] * 2


def test_a_rank_that_the_others_do_not_count_on() -> None:
    """Two nodes of two ranks each to one, one rank each to the other."""
    seats = [Seat(0, 4), Seat(1, 4), Seat(1, 2)]
    found = words(seats[::2], [{"tp": "4"}, {"tp": "2"}])
    assert found == ["tp: 4 at rank 0, 2 at rank 1; start all nodes with the same options"] * 2
    seats = [Seat(0, 2), Seat(3, 4)]
    found = words(seats, [{"tp": "2"}, {"tp": "4"}])
    assert found == ["tp: 2 at rank 0, 4 at rank 3; start all nodes with the same options"] * 2


def test_ranks_that_do_not_come(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EngineInputError) as caught:
        agree(HashStore(), Seat(0, 3, host="fd00::1", port=5), {}, NOW)
    words = "rendezvous: rank 1, rank 2 did not come to [fd00::1]:5; start their nodes"
    assert str(caught.value) == words
    monkeypatch.setattr(agreement, "SAY_SECONDS", 0)
    with caplog.at_level(logging.INFO), pytest.raises(EngineInputError):
        agree(HashStore(), Seat(0, 2, host="node0", port=5), {}, NOW)
    assert [each.message for each in caplog.records] == ["still missing at node0:5: rank 1"]


class Lost(Store):
    """A store whose process has ended."""

    def set(self, key: str, value: str) -> None:
        raise RuntimeError("Broken pipe\nException raised from ...")


def test_a_first_rank_that_has_ended() -> None:
    with pytest.raises(EngineInputError) as caught:
        agree(Lost(), Seat(1, 2, host="node0", port=5), {}, LONG)
    assert str(caught.value) == "rendezvous: rank 0 at node0:5 has ended; see what it said"


def test_options_that_ranks_may_have_each_for_itself() -> None:
    own = replace(OPTIONS, device="auto", threads=7, memory_share=0.5, check_memory=False)
    assert replace(own, prefill=("a:1",)).alike == OPTIONS.alike
    for name in ("tp", "off", "dtype", "page_size", "seed", "quantization"):
        assert name in OPTIONS.alike


def load(place: Place, folders: list[Path], options: EngineOptions) -> None:
    ranks, control = place.ranks, place.control
    assert control is not None
    build = build_engine if ranks.leads else build_follower
    build(folders[ranks.rank], options, ranks, control)


def test_other_weights_of_the_same_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / str(seed) for seed in range(2)]
    for seed, folder in enumerate(folders):
        write_checkpoint(folder, small_config(num_hidden_layers=2, vocab_size=64), seed=seed)
    options = replace(OPTIONS, load_format="auto", tp=2)
    with quick_processes(monkeypatch), RankPool(Layout(2), gpu=False) as pool:
        pool.call(load, folders[:1] * 2, options)
        with pytest.raises(EngineInputError, match="model: ranks have loaded other weights"):
            pool.call(load, folders, options)
