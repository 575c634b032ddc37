from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.errors import InputError
from upcurve.load.workload import SyntheticWorkload

exact = SyntheticWorkload.exact

workloads = st.builds(
    exact,
    isl=st.integers(1, 40),
    osl=st.just(1),
    seed=st.integers(-3, 2**40),
    vocabulary=st.tuples(st.integers(0, 1000), st.integers(3, 500)).map(
        lambda pair: (pair[0], pair[0] + pair[1])
    ),
    salt=st.text(max_size=3),
)


@given(workloads)
def test_prompts_are_exact_distinct_and_the_same_again(workload):
    count = min(40, workload.distinct_prompts)
    workload.require(count)
    phases = ("measured", "warm-up", "probe")
    prompts = [workload.prompt(phase, index).content for phase in phases for index in range(count)]
    low, high = workload.vocabulary
    assert all(len(each) == workload.isl for each in prompts)
    assert all(low <= token < high for each in prompts for token in each)
    assert len({each.tobytes() for each in prompts}) == len(prompts)
    again = [workload.prompt(phase, index).content for phase in phases for index in range(count)]
    assert all((a == b).all() for a, b in zip(prompts, again, strict=True))


def test_distinct_prompts_share_no_long_prefix():
    workload = exact(isl=512, osl=1)
    heads = {workload.prompt("measured", index).content[:8].tobytes() for index in range(2000)}
    assert len(heads) == 2000


@pytest.mark.parametrize("change", [{"seed": 1}, {"salt": "c8"}, {"isl": 65}, {"osl": 9}])
def test_the_hash_knows_every_fact(change):
    facts = {"isl": 64, "osl": 8, "seed": 0, "salt": ""}
    one, other = exact(**facts), exact(**(facts | change))
    assert one.content_hash() == exact(**facts).content_hash()
    assert one.content_hash() != other.content_hash()
    if "osl" not in change:
        first = {tuple(each.prompt("measured", i).content) for each in (one,) for i in range(50)}
        second = {tuple(each.prompt("measured", i).content) for each in (other,) for i in range(50)}
        assert not first & second


def test_too_few_distinct_prompts():
    with pytest.raises(InputError, match="isl: 34 distinct prompts cannot be made of 1 of the ids"):
        exact(isl=1, osl=1, vocabulary=(0, 100)).require(34)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"isl": 0}, "isl"),
        ({"osl": -1}, "osl"),
        ({"vocabulary": (5, 7)}, "vocabulary"),
        ({"vocabulary": (-1, 7)}, "vocabulary"),
    ],
)
def test_bad_values(change, field):
    with pytest.raises(InputError) as error:
        exact(**({"isl": 1, "osl": 1} | change))
    assert error.value.field == field
