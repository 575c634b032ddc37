"""Slices between unequal ranks: what all targets get is the whole, each element once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.transfer.described import described, shapes_of
from upcurve.engine.model.sharding import Sharding, take
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.transfer.resharding import Span, joined, routes

SIZES = st.sampled_from([1, 2, 4, 8])


def spread(count: int, dim: int, tp: int) -> list[torch.Tensor]:
    """Key-value heads of each rank, as the loader spreads their projection."""
    shapes = replace(shapes_of(), num_key_value_heads=count, num_attention_heads=8, head_dim=dim)
    whole = torch.arange(count * dim)
    parts = [
        take(whole, Sharding(shapes, Layout(tp).share(rank)).cuts("k_proj.weight"))
        for rank in range(tp)
    ]
    return [part.view(-1, dim) for part in parts]


@given(count=SIZES, source_tp=SIZES, target_tp=SIZES)
def test_every_target_gets_its_key_value_heads_once(
    count: int, source_tp: int, target_tp: int
) -> None:
    sources, targets = spread(count, 3, source_tp), spread(count, 3, target_tp)
    got = [torch.full_like(each, -1) for each in targets]
    senders: dict[int, int] = {}
    for route in routes(replace(described(), kv_heads=count), source_tp, target_tp):
        span = route.kv_heads
        if span is None:
            continue
        place = got[route.target][span.target : span.target + span.count]
        assert (place == -1).all()
        place.copy_(sources[route.source][span.source : span.source + span.count])
        senders[route.source] = senders.get(route.source, 0) + span.count
    for each, wanted in zip(got, targets, strict=True):
        assert torch.equal(each, wanted)
    # Ranks that have the same head share the work.
    if source_tp <= target_tp:
        assert len(senders) == source_tp
        assert len(set(senders.values())) == 1


@given(
    key_heads=st.sampled_from([8, 16]),
    each=st.integers(1, 3),
    key_dim=st.integers(1, 3),
    value_dim=st.integers(1, 3),
    source_tp=SIZES,
    target_tp=SIZES,
)
def test_states_and_convolution_arrive_whole(
    key_heads: int, each: int, key_dim: int, value_dim: int, source_tp: int, target_tp: int
) -> None:
    value_heads = key_heads * each
    shapes = replace(
        shapes_of(),
        num_attention_heads=8,
        num_key_value_heads=8,
        linear_num_key_heads=key_heads,
        linear_num_value_heads=value_heads,
        linear_key_head_dim=key_dim,
        linear_value_head_dim=value_dim,
    )
    whole = replace(
        described(),
        key_heads=key_heads,
        value_heads=value_heads,
        key_head_dim=key_dim,
        value_head_dim=value_dim,
    )
    for name, size in (("conv1d.weight", shapes.conv_dim), ("A_log", value_heads)):
        tensor = torch.arange(size)
        sources, targets = (
            [take(tensor, Sharding(shapes, Layout(tp).share(r)).cuts(name)) for r in range(tp)]
            for tp in (source_tp, target_tp)
        )
        got = [torch.full_like(part, -1) for part in targets]
        for route in routes(whole, source_tp, target_tp):
            spans = route.channels if name == "conv1d.weight" else (route.value_heads,)
            for span in spans:
                if span is not None:
                    place = got[route.target][span.target : span.target + span.count]
                    assert (place == -1).all()
                    place.copy_(sources[route.source][span.source : span.source + span.count])
        for part, wanted in zip(got, targets, strict=True):
            assert torch.equal(part, wanted)


def test_equal_layouts_have_one_route_for_each_rank() -> None:
    for tp in (1, 2, 4):
        found = routes(described(), tp, tp)
        assert [(route.source, route.target) for route in found] == [(r, r) for r in range(tp)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)), max_size=6))
def test_spans_that_are_joined_are_the_same_elements(spans: list[tuple[int, int, int]]) -> None:
    def pairs(of: list[Span]) -> list[tuple[int, int]]:
        return [(each.source + i, each.target + i) for each in of for i in range(each.count)]

    given_spans = [Span(*each) for each in spans]
    assert pairs(joined(given_spans)) == pairs(given_spans)


def test_between_whole_ranks_the_convolution_is_one_span() -> None:
    (route,) = routes(described(), 1, 1)
    assert len(joined(route.channels)) == 1 < len(route.channels)
    (first, *_) = routes(described(), 1, 2)
    assert len(joined(first.channels)) == 3


def test_a_route_in_numbers() -> None:
    # Two ranks of one key-value head to one: it takes the head of the first, and both states.
    whole = replace(described(), kv_heads=1, key_heads=2, value_heads=4)
    whole = replace(whole, key_head_dim=8, value_head_dim=8)
    first, second = routes(whole, 2, 1)
    assert first.kv_heads == Span(0, 0, 1)
    assert second.kv_heads is None
    assert (first.value_heads, second.value_heads) == (Span(0, 0, 2), Span(0, 2, 2))
    assert second.channels == (Span(0, 8, 8), Span(8, 24, 8), Span(16, 48, 16))


@pytest.mark.parametrize("tp", [1, 2])
def test_a_route_without_anything_is_none(tp: int) -> None:
    assert all(routes(described(), tp, 2))
