"""From caches to caches: every byte of a request arrives, and no other is touched."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from tests.engine.transfer.described import shapes_of
from tests.engine.transfer.engines import Pair, Ranks
from upcurve.engine.memory.caches import CacheTypes
from upcurve.engine.transfer.sender import CANCELLED, Part

PART = Part("a", "one", 1, [5, 2, 7], 2, [3, 9, 1], first=0, count=10, last=True)
WAYS = ["tcp", "copy"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tps", [(1, 1), (1, 2), (2, 1), (2, 2), (1, 4), (4, 2), (4, 1), (2, 4)])
def test_a_request_arrives_whole_between_any_layouts(way: str, tps: tuple[int, int]) -> None:
    shapes = shapes_of(linear_num_key_heads=4, linear_num_value_heads=8)
    source, target = (Ranks(tp, seed=seed, shapes=shapes) for seed, tp in enumerate(tps))
    with Pair(source, target, way) as pair:
        pair.send(PART)
        assert pair.reports.wait("a", source.tp) == [None] * source.tp
    target.expect(source, PART, tokens=10)
    target.check()
    source.check()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "types",
    [
        CacheTypes(torch.bfloat16, torch.float8_e4m3fn, torch.bfloat16),
        CacheTypes(torch.bfloat16, torch.bfloat16, torch.float32),
        CacheTypes(torch.float32, torch.float32, torch.float32),
    ],
)
@pytest.mark.parametrize("head_dim", [16, 6])
def test_bytes_are_moved_whatever_they_stand_for(
    way: str, types: CacheTypes, head_dim: int
) -> None:
    shapes = shapes_of(head_dim=head_dim, rope_parameters={"partial_rotary_factor": 1.0})
    source, target = (Ranks(1, seed=seed, types=types, shapes=shapes) for seed in range(2))
    with Pair(source, target, way) as pair:
        pair.send(PART)
        assert pair.reports.wait("a") == [None]
    target.expect(source, PART, tokens=10)
    target.check()


@pytest.mark.parametrize("way", WAYS)
def test_chunks_of_several_requests_in_steps_that_they_share(way: str) -> None:
    source, target = Ranks(2, seed=1), Ranks(1, seed=2)
    other = Part("b", "one", 0, [1, 3], 0, [6, 4], first=0, count=7, last=True)
    with Pair(source, target, way) as pair:
        pair.send(replace(PART, count=3, last=False))
        pair.send(replace(PART, first=3, count=6, last=False), other)
        assert pair.reports.wait("b", 2) == [None, None]
        assert "a" not in pair.reports.errors
        pair.send(replace(PART, first=9, count=1))
        assert pair.reports.wait("a", 2) == [None, None]
    target.expect(source, PART, tokens=10)
    target.expect(source, other, tokens=7)
    target.check()


@pytest.mark.parametrize("way", WAYS)
def test_states_are_those_after_the_last_chunk(way: str) -> None:
    source, target = Ranks(1, seed=1), Ranks(1, seed=2)
    with Pair(source, target, way) as pair:
        pair.send(replace(PART, count=3, last=False))
        # The next step moves the states on.
        source.caches[0].recurrent[:, 1] += 1
        source.whole.recurrent[:, 1] += 1
        pair.send(replace(PART, first=3, count=7))
        pair.reports.wait("a")
    target.expect(source, PART, tokens=10)
    target.check()


@pytest.mark.parametrize("way", WAYS)
def test_a_cancelled_transfer_writes_nothing_once_it_is_reported(way: str) -> None:
    source, target = Ranks(1, seed=1), Ranks(1, seed=2)
    with Pair(source, target, way) as pair:
        pair.send(replace(PART, count=4, last=False))
        (sender,) = pair.senders
        while sender.sent_bytes < 4 * 2 * 2 * 16 * 2:
            time.sleep(0.001)
        launched = sender.step([replace(PART, first=4, count=6)])
        sender.cancel("a")
        assert pair.reports.wait("a") == [CANCELLED]
        # A step that was on its way when it was cancelled.
        assert launched is not None
        for layer in range(4):
            launched.after(layer)
        pair.send(Part("b", "one", 0, [1], 0, [6], first=0, count=1, last=True))
        pair.reports.wait("b")
        assert pair.reports.errors["a"] == [CANCELLED]
        sender.cancel("a")
        sender.cancel("unknown")
    target.expect(source, PART, tokens=4, states=False)
    target.expect(source, Part("b", "one", 0, [1], 0, [6], 0, 1, last=True), tokens=1)
    target.check()
    assert set(pair.reports.errors) == {"a", "b"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pages", [[3, 9, 0], [3, 9, 10], [3, 9, -1], [3, 9]])
def test_pages_that_nobody_can_own_are_refused(way: str, pages: list[int]) -> None:
    source, target = Ranks(1, seed=1), Ranks(1, seed=2)
    with Pair(source, target, way) as pair:
        pair.send(replace(PART, remote_pages=pages))
        (error,) = pair.reports.wait("a")
        assert error is not None
        assert "page" in error
        for slot in (-1, 3):
            pair.send(replace(PART, transfer=f"b{slot}", remote_slot=slot))
            (error,) = pair.reports.wait(f"b{slot}")
            assert error == f"the decode worker's memory: slot {slot} of 3"
    target.check()


@pytest.mark.parametrize("way", WAYS)
def test_what_was_sent_is_counted(way: str) -> None:
    source, target = Ranks(2, seed=1), Ranks(1, seed=2)
    with Pair(source, target, way) as pair:
        pair.send(PART)
        pair.reports.wait("a", 2)
        shapes = source.shapes
        tokens = 10 * 2 * shapes.num_key_value_heads * shapes.head_dim * 2
        state = shapes.linear_num_value_heads * 8 * 8 * 4 + 4 * shapes.conv_dim * 2
        assert sum(sender.sent_bytes for sender in pair.senders) == tokens + 3 * state
    assert sum(sender.sent_bytes for sender in pair.senders) == tokens + 3 * state
