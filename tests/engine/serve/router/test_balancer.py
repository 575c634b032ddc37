"""Who gets a request: the replica that knows its beginning, unless it has too much to do."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.serve.router.balancer import RATIO, SLACK, TOKENS, Balancer, prompt_pieces


def pieces(tokens: list[int]) -> list[int]:
    return prompt_pieces(orjson.dumps({"prompt": tokens}))


def test_without_a_known_beginning_the_least_loaded_is_chosen_and_equal_ones_in_turn() -> None:
    balancer = Balancer()
    assert balancer.choose([], {"a": 2, "b": 1}) == "b"
    assert {balancer.choose([], {"a": 0, "b": 0}) for _ in range(4)} == {"a", "b"}


def test_a_prompt_goes_where_its_longest_known_beginning_went() -> None:
    balancer, common = Balancer(), list(range(TOKENS))
    first = pieces(common + [1] * TOKENS)
    second = pieces(common + [2] * TOKENS)
    assert balancer.choose(first, {"a": 0, "b": 1}) == "a"
    # Its beginning is known, but not the rest; then a is gone, and the rest is learnt by b.
    assert balancer.choose(second, {"a": SLACK, "b": 0}) == "a"
    assert balancer.choose(second, {"b": 0}) == "b"
    assert balancer.choose(second, {"a": 0, "b": 1}) == "b"
    # The common beginning belongs to the last who got it, the first prompt's rest does not.
    assert balancer.choose(first, {"a": 1, "b": 0}) == "a"


@given(least=st.integers(0, 50), more=st.integers(0, 100))
def test_a_known_beginning_counts_until_its_replica_has_much_more_to_do(
    least: int, more: int
) -> None:
    balancer, mine = Balancer(), pieces(list(range(TOKENS)))
    balancer.choose(mine, {"a": 0, "b": 1})
    load = least + more
    expected = "a" if load <= RATIO * least + SLACK else "b"
    assert balancer.choose(mine, {"a": load, "b": least}) == expected


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"no json", 0),
        (b"[1]", 0),
        (orjson.dumps({"prompt": 5}), 0),
        (orjson.dumps({"prompt": "x" * 600}), 2),
        (orjson.dumps({"prompt": ["x" * 600, "y"]}), 2),
        (orjson.dumps({"prompt": [list(range(130)), [1]]}), 2),
        (orjson.dumps({"prompt": list(range(63))}), 0),
        (orjson.dumps({"messages": [{"role": "user", "content": "z" * 300}]}), 1),
    ],
)
def test_pieces_of_all_kinds_of_prompts(body: bytes, count: int) -> None:
    assert len(prompt_pieces(body)) == count


@given(st.lists(st.integers(0, 3), max_size=400), st.lists(st.integers(0, 3), max_size=400))
def test_pieces_are_equal_as_far_as_prompts_are(first: list[int], second: list[int]) -> None:
    same = next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    one, two = pieces(first), pieces(second)
    common = sum(a == b for a, b in zip(one, two, strict=False))
    assert common == same // TOKENS
