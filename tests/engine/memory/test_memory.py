"""Ownership of pages and slots."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from upcurve.engine.memory.memory import Memory
from upcurve.engine.memory.reservation import Reservation
from upcurve.engine.model.checkpoint import small_config
from upcurve.engine.model.shapes import ModelShapes

SHAPES = ModelShapes.from_config(small_config(num_hidden_layers=4))
PAGE, PAGES, SLOTS = 4, 9, 3


def new_memory() -> Memory:
    return Memory(
        SHAPES,
        max_running_requests=SLOTS,
        token_capacity=PAGE * PAGES,
        page_size=PAGE,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


class Owners(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.memory = new_memory()
        self.held: list[Reservation] = []

    @rule(tokens=st.integers(0, PAGE * PAGES + 3))
    def reserve(self, tokens: int) -> None:
        need = max(1, -(-tokens // PAGE))
        used = sum(len(each.pages) for each in self.held)
        got = self.memory.reserve(tokens)
        assert self.memory.fits(tokens) == (need <= PAGES)
        if used + need > PAGES or len(self.held) == SLOTS:
            assert got is None
            return
        assert got is not None
        assert len(got.pages) == need
        assert got.capacity == need * PAGE >= tokens
        assert got.page_table.tolist() == got.pages
        assert 0 not in got.pages
        for state in self.memory.linear.values():
            assert not state.recurrent[got.slot].any()
            assert not state.convolution[got.slot].any()
            state.recurrent[got.slot] = 1.0
            state.convolution[got.slot] = 1.0
        self.held.append(got)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        which = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        assert not which.released
        which.release()
        assert which.released
        with pytest.raises(RuntimeError, match=rf"slot {which.slot} was released twice"):
            which.release()

    @invariant()
    def everything_is_free_or_owned_once(self) -> None:
        self.memory.check()
        usage = self.memory.usage()
        assert usage.pages == sum(len(each.pages) for each in self.held)
        assert usage.slots == len(self.held)
        assert (usage.total_pages, usage.total_slots) == (PAGES, SLOTS)


TestOwners = Owners.TestCase


def test_the_same_requests_get_the_same_places() -> None:
    one, other = new_memory(), new_memory()
    for memory in (one, other):
        first = memory.reserve(9)
        second = memory.reserve(3)
        assert first is not None
        assert second is not None
        assert (first.pages, first.slot, second.pages, second.slot) == ([1, 2, 3], 0, [4], 1)
        first.release()
        again = memory.reserve(9)
        assert again is not None
        assert (again.pages, again.slot) == ([1, 2, 3], 0)


@pytest.mark.parametrize("kind", ["pages", "slot"])
def test_check_finds_what_is_shared(kind: str) -> None:
    memory = new_memory()
    first, second = memory.reserve(4), memory.reserve(4)
    assert first is not None
    assert second is not None
    setattr(second, kind, getattr(first, kind))
    with pytest.raises(RuntimeError, match="leaks or is shared"):
        memory.check()


def test_capacity_is_rounded_up_to_whole_pages() -> None:
    memory = Memory(
        SHAPES,
        max_running_requests=1,
        token_capacity=PAGE + 1,
        page_size=PAGE,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    assert memory.usage().total_pages == 2
    assert memory.fits(2 * PAGE)
    assert not memory.fits(2 * PAGE + 1)
