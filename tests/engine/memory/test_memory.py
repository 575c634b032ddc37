"""Ownership of pages and slots."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from upcurve.engine.memory.memory import Memory
from upcurve.engine.memory.reservation import Reservation

PAGE, PAGES, SLOTS = 4, 9, 3


def new_memory() -> Memory:
    return Memory(max_running_requests=SLOTS, token_capacity=PAGE * PAGES, page_size=PAGE)


class Owners(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.memory = new_memory()
        self.held: list[Reservation] = []

    @rule(tokens=st.integers(0, PAGE * PAGES + 3), spare=st.integers(0, 2))
    def reserve(self, tokens: int, spare: int) -> None:
        need = max(1, -(-tokens // PAGE))
        used = sum(len(each.pages) for each in self.held)
        got = self.memory.reserve(tokens, spare)
        assert self.memory.fits(tokens) == (need <= PAGES)
        if used + need + spare > PAGES or len(self.held) == SLOTS:
            assert got is None
            return
        assert got is not None
        assert len(got.pages) == need
        assert got.capacity == need * PAGE >= tokens
        assert 0 not in got.pages
        self.held.append(got)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), tokens=st.integers(0, PAGE * PAGES + 3))
    def grow(self, data: st.DataObject, tokens: int) -> None:
        which = data.draw(st.sampled_from(self.held))
        used = sum(len(each.pages) for each in self.held)
        had = list(which.pages)
        more = max(0, -(-tokens // PAGE) - len(had))
        assert which.grow(tokens) == (used + more <= PAGES)
        assert which.pages[: len(had)] == had
        assert len(which.pages) == len(had) + (more if used + more <= PAGES else 0)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        which = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        assert not which.released
        which.release()
        assert which.released
        with pytest.raises(RuntimeError, match=rf"slot {which.slot} was released twice"):
            which.release()
        with pytest.raises(RuntimeError, match="cannot grow"):
            which.grow(which.capacity + 1)

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
    memory = Memory(max_running_requests=1, token_capacity=PAGE + 1, page_size=PAGE)
    assert memory.usage().total_pages == 2
    assert memory.fits(2 * PAGE)
    assert not memory.fits(2 * PAGE + 1)
