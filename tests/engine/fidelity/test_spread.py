"""Logits over the ranks of a layout are those of one rank; what goes wrong on a rank is said."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from multiprocessing import Value
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.model.oracle import random_ids, tiny_config
from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.fidelity.check import Format, Reference, Steps, options_of
from upcurve.engine.fidelity.divergence import Divergence
from upcurve.engine.fidelity.forced import Passage
from upcurve.engine.fidelity.pool import Place, RankPool
from upcurve.engine.fidelity.spread import on_host, part_of_logits, spread_logits
from upcurve.engine.parallel.layout import Layout, Share
from upcurve.engine.parallel.ranks import ALONE

FP32 = Format("fp32", load_format="dummy", seed=3)
STEPS = Steps(step_tokens=20, requests=2)
SAME = 1e-10
"""Nats: other orders of float32's sums."""


def passage(prompt: int, output: int) -> Passage:
    ids = random_ids(prompt + output, seed=prompt)
    return Passage(ids[:prompt], ids[prompt:])


PASSAGES = {f"{prompt}": passage(prompt, 6) for prompt in (1, 30, 65, 3, 17)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(tiny_config()))
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference.of(folder, PASSAGES, torch.device("cpu"), FP32)


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    with RankPool(Layout(2), gpu=False) as pool:
        yield pool


def options(layout: Layout) -> EngineOptions:
    tp, ep, dp = layout.tp, layout.ep, layout.dp
    more = {"device": "cpu", "check_memory": True, "threads": 1}
    return options_of(FP32, STEPS, 80, tp=tp, ep=ep, dp=dp, **more)


def lost(reference: Reference, pool: RankPool, folder: Path, layout: Layout) -> Divergence:
    return reference.against(spread_logits(pool, folder, options(layout), PASSAGES))


def test_one_pool_has_all_layouts_of_as_many_ranks(
    pool: RankPool, folder: Path, reference: Reference
) -> None:
    for layout in (Layout(2), Layout(2, 2), Layout(2)):
        found = lost(reference, pool, folder, layout)
        assert found.kl_max < SAME
        assert found.tokens == 6 * len(PASSAGES)


def test_replicas_that_share_experts_have_a_part_each(folder: Path, reference: Reference) -> None:
    layout = Layout(1, 2, 2)
    with RankPool(layout, gpu=False) as pool:
        parts = pool.call(part_of_logits, folder, options(layout), PASSAGES)
    assert [list(part) for part in parts] == [["1", "65", "17"], ["30", "3"]]
    found = on_host({**parts[0], **parts[1]}, PASSAGES)
    assert reference.against(found).kl_max < SAME


def counted_whole(
    place: Place, folder: Path, options: EngineOptions, passages: Mapping[str, Passage]
) -> dict[str, np.ndarray]:
    kept = Share.shared_scale
    Share.shared_scale = 1.0  # type: ignore[assignment]
    try:
        return part_of_logits(place, folder, options, passages)
    finally:
        Share.shared_scale = kept  # type: ignore[method-assign]


def test_a_shared_expert_that_both_ranks_count_whole_is_found(
    pool: RankPool, folder: Path, reference: Reference
) -> None:
    parts = pool.call(counted_whole, folder, options(Layout(2, 2)), PASSAGES)
    assert reference.against(on_host(parts[0], PASSAGES)).kl_mean > 1e-4


def refuse(place: Place) -> None:
    raise EngineInputError("model", "is none", "give one")


def fail(place: Place) -> None:
    raise KeyError("here")


def end(place: Place) -> None:
    os._exit(3)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (refuse, EngineInputError, "model: is none; give one"),
        (fail, RuntimeError, "rank 0: (?s:.*)KeyError: 'here'"),
        (end, RuntimeError, "a rank ended"),
    ],
)
def test_what_goes_wrong_on_a_rank_is_raised_here_and_closes_the_pool(
    function: Any, error: type[Exception], words: str
) -> None:
    with RankPool(Layout(), gpu=False) as pool:
        with pytest.raises(error, match=words):
            pool.call(function)
        with pytest.raises(RuntimeError, match="a rank ended"):
            pool.call(function)


@pytest.mark.parametrize("layout", [Layout(2), Layout(1, 2, 2)])
def test_a_layout_that_needs_other_connections_is_refused(layout: Layout) -> None:
    with pytest.raises(ValueError, match="met as"):
        Place(ALONE, None, Value("i", 0)).among(layout)
