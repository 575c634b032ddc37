"""Writes through NIXL: every process that loads the library is a child, killed at the end."""

from __future__ import annotations

import signal
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.transfer.processes import SESSION, Source, Target, process
from tests.engine.transfer.test_endings import LARGE, PART, WIDE
from upcurve.engine.transfer.nixl import library
from upcurve.engine.transfer.reach import Place, token_runs
from upcurve.engine.transfer.transport import NIXL_PACKAGES

needs_nixl = pytest.mark.skipif(
    not any(map(find_spec, NIXL_PACKAGES)), reason="no NIXL on this platform"
)


@given(
    shape=st.lists(st.integers(1, 4), min_size=3, max_size=3),
    indices=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    dtype=st.sampled_from([torch.uint8, torch.int16, torch.int64]),
)
def test_an_address_is_that_of_its_element(
    shape: list[int], indices: list[int], dtype: torch.dtype
) -> None:
    x = torch.zeros(shape, dtype=dtype)
    indices = [index % size for index, size in zip(indices, shape, strict=True)]
    assert Place.of(x).at(*indices) == x[tuple(indices)].data_ptr()
    assert Place.of(x).at(indices[0]) == x[indices[0]].data_ptr()


@given(
    pairs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=9), whole=st.booleans()
)
def test_runs_are_the_same_tokens(pairs: list[tuple[int, int]], whole: bool) -> None:
    here, there = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    runs = token_runs(here, there, whole=whole)
    expanded = [
        (first + index, other + index)
        for first, other, count in zip(*runs, strict=True)
        for index in range(count)
    ]
    assert expanded == pairs
    assert whole or len(runs[0]) == len(pairs)


def test_tokens_of_a_page_are_one_run() -> None:
    here, there = np.array([8, 9, 10, 11, 4, 5]), np.array([4, 5, 6, 7, 8, 9])
    runs = token_runs(here, there, whole=True)
    assert [each.tolist() for each in runs] == [[8, 4], [4, 8], [4, 2]]


@needs_nixl
@pytest.mark.parametrize("tp", [1, 2])
def test_a_request_arrives_whole(tp: int) -> None:
    with process(Target, "nixl", {}) as target, process(Source, "nixl", {}, tp) as source:
        offers = [target("offer")] * tp
        assert source("connect", SESSION, offers) == {"nixl"}
        source("send", replace(PART, count=3, last=False), 4)
        source("send", replace(PART, first=3, count=7), 4)
        assert source("wait", "a") == [None] * tp
        target("check", PART, 10)
        # What was named to one session is not for another.
        source("disconnect", SESSION)
        target("expel", SESSION)
        assert target("gone", 55)
        with pytest.raises(AssertionError, match="OSError: nixl: "):
            source("connect", "two", offers)


@needs_nixl
def test_a_decode_rank_that_is_killed_costs_an_error() -> None:
    with process(Target, "nixl", LARGE) as target, process(Source, "nixl", LARGE) as source:
        source("connect", SESSION, [target("offer")])
        target.signal(signal.SIGSTOP)
        source("send", WIDE, 4)
        target.end()
        (error,) = source("wait", "a")
        assert error.startswith("the link to decode rank 0: ")


@needs_nixl
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_prefill_rank_that_ends_or_is_stopped(number: signal.Signals) -> None:
    with process(Target, "nixl", LARGE) as target, process(Source, "nixl", LARGE) as source:
        source("connect", SESSION, [target("offer")])
        source("send", replace(WIDE, last=False), 4)
        source.signal(number)
        target("expel", SESSION)
        # Within a host it may write for as long as it runs.
        stopped = number == signal.SIGSTOP
        assert target("gone", 0.3 if stopped else 55) is not stopped
        source.end()
        assert target("gone", 55)


def test_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upcurve.engine.transfer.nixl.NIXL_PACKAGES", ("no_such_package",))
    with pytest.raises(OSError, match=r"install upcurve\[nixl\]"):
        library()
