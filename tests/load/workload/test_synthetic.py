from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.errors import InputError
from upcurve.load.workload import SharedPrefix, SyntheticWorkload, parse_lengths

exact = SyntheticWorkload.exact
GOLDEN = [498, 273, 1085, 505, 370, 864, 1164, 860, 256, 847, 276, 1229]

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


def test_the_prompts_of_a_seed_never_change():
    """What was measured under a seed is measured again under it, on any machine."""
    prompt = exact(12, 4, seed=7, salt="c2").prompt("measured", 5)
    assert prompt.content.tolist() == GOLDEN
    assert (prompt.input_tokens, prompt.output_tokens) == (12, 4)


def test_prompts_share_prefixes_in_turn_and_nothing_else():
    workload = SyntheticWorkload(
        parse_lengths("20", "isl"), parse_lengths("4", "osl"), prefix=SharedPrefix(8, 3)
    )
    prompts = [workload.prompt("measured", index).content for index in range(30)]
    assert len({each[:8].tobytes() for each in prompts}) == 3
    assert all((prompts[i][:8] == prompts[i + 3][:8]).all() for i in range(27))
    assert len({each[8:14].tobytes() for each in prompts}) == 30
    warm = workload.prompt("warm-up", 0).content
    assert (warm[:8] == prompts[0][:8]).all()  # the warm-up fills the cache that is asked for
    assert (workload.shared_prefix, exact(20, 4).shared_prefix) == (True, False)
    # Another salt has other prompts under the same prefixes.
    other = workload.salted("c8").prompt("measured", 0).content
    assert (other[:8] == prompts[0][:8]).all()
    assert (other[8:] != prompts[0][8:]).any()


@pytest.mark.parametrize(("length", "count"), [(20, 1), (0, 1), (5, 0)])
def test_a_prefix_leaves_room(length, count):
    with pytest.raises(InputError, match="shared-prefix"):
        SyntheticWorkload(
            parse_lengths("20", "isl"),
            parse_lengths("4", "osl"),
            prefix=SharedPrefix(length, count),
        )


@given(st.integers(0, 99))
def test_lengths_follow_their_distributions(seed):
    workload = SyntheticWorkload(
        parse_lengths("uniform:0.5:40", "isl"), parse_lengths("histogram:3=1,9=1", "osl"), seed
    )
    prompts = [workload.prompt("measured", index) for index in range(20)]
    assert all(20 <= len(each.content) == each.input_tokens <= 40 for each in prompts)
    assert {each.output_tokens for each in prompts} <= {3, 9}
    assert (workload.isl, workload.osl) == (40, 6)
    again = pickle.loads(pickle.dumps(workload))
    assert again.content_hash() == workload.content_hash()
    assert (again.prompt("measured", 7).content == prompts[7].content).all()
