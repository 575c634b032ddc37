from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
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


lengths = st.sampled_from(
    ["40", "uniform:0.2:60", "normal:50:20:12:90", "histogram:12=1,33=2,70=1"]
).map(lambda text: parse_lengths(text, "isl"))


@settings(deadline=None)
@given(
    lengths,
    st.none() | st.builds(SharedPrefix, st.integers(1, 11), st.integers(1, 5)),
    st.integers(0, 2**40),
    st.text(max_size=3),
)
def test_drawn_lengths_and_shared_prefixes(isl, prefix, seed, salt):
    osl = parse_lengths("uniform:0.5:20", "osl")
    workload = SyntheticWorkload(isl, osl, seed=seed, vocabulary=(7, 400), prefix=prefix, salt=salt)
    count = min(60, workload.distinct_prompts)
    workload.require(count)
    start = prefix.length if prefix else 0
    beginnings, heads = [], []
    for phase in ("measured", "warm-up", "probe"):
        for index in range(count):
            prompt = workload.prompt(phase, index)
            assert len(prompt.content) == prompt.input_tokens
            assert prompt.content.dtype == "uint32"
            assert isl.minimum <= prompt.input_tokens <= isl.maximum
            assert 10 <= prompt.output_tokens <= 20
            assert prompt.content.min() >= 7
            assert prompt.content.max() < 400
            beginnings.append((index, prompt.content[:start].tobytes()))
            heads.append(prompt.content[: start + 5].tobytes())
    assert len(set(heads)) == len(heads)
    if prefix:
        of = {index % prefix.count: beginning for index, beginning in beginnings}
        assert all(of[index % prefix.count] == beginning for index, beginning in beginnings)


def test_drawn_lengths_follow_their_distribution():
    isl, osl = parse_lengths("histogram:16=3,64=1", "isl"), parse_lengths("uniform:0.5:100", "osl")
    workload = SyntheticWorkload(isl, osl)
    prompts = [workload.prompt("measured", index) for index in range(4000)]
    inputs = [each.input_tokens for each in prompts]
    outputs = [each.output_tokens for each in prompts]
    assert inputs.count(16) / 4000 == pytest.approx(0.75, abs=0.04)
    assert sum(outputs) / 4000 == pytest.approx(osl.mean, abs=1.2)
    # Input and output of one request are drawn apart.
    short = [out for out, size in zip(outputs, inputs, strict=True) if size == 16]
    assert sum(short) / len(short) == pytest.approx(osl.mean, abs=1.4)


def test_points_share_no_prompt_and_keep_their_prefixes():
    workload = SyntheticWorkload(
        parse_lengths("40", "isl"), parse_lengths("1", "osl"), prefix=SharedPrefix(8, 2)
    )
    one, other = workload.salted("c8 r0"), workload.salted("c16 r0")
    first = {one.prompt("measured", index).content.tobytes() for index in range(200)}
    second = {other.prompt("measured", index).content.tobytes() for index in range(200)}
    assert not first & second
    assert (one.prompt("measured", 0).content[:8] == other.prompt("warm-up", 2).content[:8]).all()


def test_a_pickled_workload_is_the_same():
    workload = SyntheticWorkload(
        parse_lengths("normal:100:20", "isl"),
        parse_lengths("histogram:3=1,9=1", "osl"),
        seed=5,
        prefix=SharedPrefix(1, 3),
        salt="c4",
    )
    copy = pickle.loads(pickle.dumps(workload))
    assert copy == workload
    assert copy.content_hash() == workload.content_hash()
    for index in range(20):
        one, other = workload.prompt("measured", index), copy.prompt("measured", index)
        assert (one.content == other.content).all()
        assert one.output_tokens == other.output_tokens


def test_golden_prompts():
    """The same prompts for the same seed in every version, or the hash has another number."""
    workload = exact(isl=8, osl=1, seed=42)
    assert workload.prompt("measured", 0).content.tolist() == [
        855,
        1030,
        755,
        876,
        706,
        326,
        960,
        829,
    ]
    assert workload.salted("c8").prompt("warm-up", 3).content.tolist() == [
        1267,
        1228,
        531,
        410,
        639,
        289,
        656,
        436,
    ]
    drawn = SyntheticWorkload(
        parse_lengths("normal:9:3", "isl"), parse_lengths("uniform:0.5:99", "osl"), seed=42
    )
    assert drawn.prompt("measured", 1).content.tolist() == [
        705,
        1034,
        887,
        261,
        768,
        855,
        265,
        455,
        1241,
    ]
    assert drawn.prompt("measured", 1).output_tokens == 65
    assert (
        workload.content_hash()
        == "7b9b5373e6b67c84d611dbec2e3b3b340d6a59c2332fb096c2c42957906f38cf"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"prefix": None},
        {"prefix": SharedPrefix(4, 2)},
        {"prefix": SharedPrefix(5)},
        {"vocabulary": (256, 1281)},
        {"input_length": parse_lengths("uniform:0.5:64", "isl")},
    ],
)
def test_the_hash_knows_lengths_and_prefix(change):
    facts = {
        "input_length": parse_lengths("64", "isl"),
        "output_length": parse_lengths("8", "osl"),
        "prefix": SharedPrefix(4),
    }
    one, other = SyntheticWorkload(**facts), SyntheticWorkload(**(facts | change))
    assert one.content_hash() != other.content_hash()
    assert json.loads(json.dumps(one.facts())) == one.facts()


def test_a_prefix_is_shorter_than_every_prompt():
    lengths = parse_lengths("uniform:0.5:100", "isl")
    SyntheticWorkload(lengths, parse_lengths("1", "osl"), prefix=SharedPrefix(49))
    with pytest.raises(InputError, match="shared-prefix: 50 tokens leave nothing of 50"):
        SyntheticWorkload(lengths, parse_lengths("1", "osl"), prefix=SharedPrefix(50))


@pytest.mark.parametrize("values", [(0, 1), (1, 0), (-3, 1)])
def test_no_prefix(values):
    with pytest.raises(InputError, match="shared-prefix"):
        SharedPrefix(*values)


def test_a_normal_without_bounds_has_prompts_enough():
    isl = parse_lengths("normal:1024:200", "isl")
    SyntheticWorkload(isl, parse_lengths("1", "osl"), prefix=SharedPrefix(100)).require(10**6)
    with pytest.raises(InputError, match="smallest length counts"):
        SyntheticWorkload(parse_lengths("normal:10:5", "isl"), isl).require(10**6)
