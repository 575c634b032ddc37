"""Sums through the memory of other ranks, which are processes, by Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests.engine.parallel.generation import generate
from tests.engine.parallel.test_layouts import (
    OPTIONS,
    SAMPLINGS,
    draw_prompts,
    expected,
    write_config,
)
from upcurve.engine.fidelity.pool import Place, RankPool
from upcurve.engine.kernels import rms_norm, rms_norm_kernels
from upcurve.engine.model import joining
from upcurve.engine.parallel import boxes
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.ranks import Ranks
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="no Triton interpreter"),
]
CPU = torch.device("cpu")
EPS = 1e-6
TURNS = [3, 1, 2, 3, 1]
"""Rows of one sum after the other."""


def parts_of(rank: int, turn: int, rows: int, width: int, dtype: torch.dtype) -> Any:
    """What a rank computes: [rows, 3, width], and weights, of which one is 0 and its part NaN."""
    generator = torch.Generator().manual_seed(100 * turn + rank)
    parts = torch.randn(rows, 3, width, generator=generator).to(dtype)
    mixing = torch.randn(rows, 3, generator=generator)
    mixing[:, rank % 3] = 0
    parts[:, rank % 3] = float("nan")
    return parts, mixing


def sum_often(
    place: Place, ranks: int, width: int, dtype: torch.dtype, before: int
) -> list[torch.Tensor] | None:
    """Add and normalise over some ranks, turn after turn; return what the residual streams were."""
    import tests.engine.interpreter  # noqa: F401

    rank = place.ranks.rank
    heads = Ranks.of(Layout(ranks), rank).heads
    if rank >= ranks:
        return None
    peers = boxes.open_boxes(heads, width, dtype, CPU, rows=max(TURNS))
    assert peers is not None
    peers.turns.fill_(before)
    found = []
    for turn, rows in enumerate(TURNS):
        parts, mixing = parts_of(rank, turn, rows, width, dtype)
        residual = torch.ones(rows, width, dtype=dtype)
        weight = torch.zeros(width)
        after, y, _ = rms_norm_kernels.add_norm(
            residual, parts, weight, EPS, mixing, quantize=False, peers=peers
        )
        size = after.double().pow(2).mean(-1, keepdim=True)
        step = 2**-8 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(
            y.double(), after.double() / (size + EPS).sqrt(), rtol=step, atol=1e-5
        )
        found.append(after.clone())
    return [each.float().numpy() for each in found]


@pytest.mark.parametrize(
    ("ranks", "width", "dtype", "before"),
    [
        (2, 96, torch.bfloat16, 0),
        (4, 64, torch.float32, 0),
        # Marks begin anew.
        (2, 64, torch.bfloat16, 2**16 - 3),
        (2, 64, torch.float32, 2**31 - 3),
    ],
)
def test_all_ranks_get_the_sum(
    pool: RankPool, ranks: int, width: int, dtype: torch.dtype, before: int
) -> None:
    found = [each for each in pool.call(sum_often, ranks, width, dtype, before) if each]
    assert len(found) == ranks
    for turn, rows in enumerate(TURNS):
        total, size = torch.ones(rows, width).double(), torch.ones(rows, width).double()
        for rank in range(ranks):
            parts, mixing = parts_of(rank, turn, rows, width, dtype)
            terms = mixing.double().unsqueeze(-1) * parts.double().nan_to_num(0)
            total, size = total + terms.sum(1), size + terms.abs().sum(1)
        step = 2**-7 if dtype == torch.bfloat16 else 1e-6
        for each in found:
            assert (each[turn] == found[0][turn]).all()
            assert ((torch.from_numpy(each[turn]).double() - total).abs() <= step * size).all()


def test_a_box_has_no_more_rows_than_a_gpu_sums_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(ranks: int, width: int, dtype: torch.dtype) -> int:
        return boxes.most_rows(ranks, width, dtype, CPU)

    monkeypatch.setattr(boxes, "multiprocessors", lambda _: 132)
    assert rows(2, 2048, torch.bfloat16) == 512
    assert rows(2, 4096, torch.bfloat16) == rows(2, 2048, torch.float32) == 132
    assert rows(4, 2048, torch.bfloat16) == 132
    monkeypatch.setattr(boxes, "multiprocessors", lambda _: 78)
    assert rows(2, 2048, torch.bfloat16) == 312


def refused(place: Place, what: str) -> bool | None:
    """Open boxes where one rank cannot; return whether there are none."""
    rank = place.ranks.rank
    heads = Ranks.of(Layout(4), rank).heads
    if rank >= 4:
        return None

    def fail(*_: Any) -> Any:
        raise RuntimeError("no room\nmore")

    def other() -> str:
        return "another"

    def lost(each: Any) -> torch.Tensor:
        return torch.zeros(each.shape, dtype=getattr(torch, each.dtype))

    name, function = {
        "room": ("box", fail),
        "export": ("export", fail),
        "map": ("open_export", fail),
        "host": ("host_identity", other),
        "lost": ("open_export", lost),
    }[what]
    with patch.object(boxes, name, function if rank == 2 else getattr(boxes, name)):
        return boxes.open_boxes(heads, 8, torch.bfloat16, CPU) is None


@pytest.mark.parametrize("what", ["room", "export", "map", "host", "lost"])
def test_all_do_without_where_one_cannot(pool: RankPool, what: str) -> None:
    assert pool.call(refused, what) == [True] * 4 + [None] * 4


def generate_in_boxes(place: Place, *arguments: Any) -> tuple[Any, int]:
    """Generate, with norms as kernels; return how many sums went through boxes, too."""
    import tests.engine.interpreter  # noqa: F401

    sums, kernel = [], rms_norm_kernels.add_norm

    def counted(*given: Any, **named: Any) -> Any:
        sums.append(named["peers"] is not None)
        return kernel(*given, **named)

    with (
        patch.object(joining, "shares_memory", lambda _: True),
        patch.object(rms_norm, "runs_kernels", lambda _: True),
        patch.object(rms_norm_kernels, "add_norm", counted),
        patch.object(boxes, "multiprocessors", lambda _: 8),
    ):
        return generate(place, *arguments), sum(sums)


@pytest.mark.parametrize("layout", [(2, 1, 1), (4, 2, 1), (2, 4, 2)])
def test_layouts_give_the_tokens_of_one_rank(
    pool: RankPool, tmp_path: Path, layout: tuple[int, int, int]
) -> None:
    folder = write_config(tmp_path)
    tp, ep, dp = layout
    options = replace(OPTIONS, tp=tp, ep=ep, dp=dp)
    # The first step has more rows than boxes have.
    prompts = [draw_prompts(each, [9, 2]) for each in range(dp)]
    got = pool.call(generate_in_boxes, folder, options, prompts, SAMPLINGS)
    for replica in range(dp):
        tokens, sums = got[replica * tp]
        assert tokens == expected(folder, options, prompts[replica])
        assert sums > 0
    assert all(each[1] > 0 for each in got[: tp * dp])
