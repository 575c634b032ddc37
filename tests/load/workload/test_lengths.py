from __future__ import annotations

import json
import math
import pickle

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.errors import InputError
from upcurve.load.workload import parse_lengths

weights = st.dictionaries(
    st.integers(1, 9000), st.floats(1e-3, 1e3, allow_nan=False), min_size=1, max_size=12
)
texts = st.one_of(
    st.integers(1, 2**24).map(str),
    st.tuples(st.floats(1e-6, 1), st.integers(1, 2**24)).map(
        lambda pair: "uniform:{}:{}".format(*pair)
    ),
    st.tuples(st.floats(1, 2**20), st.floats(1e-3, 1e5)).map(
        lambda pair: "normal:{}:{}".format(*pair)
    ),
    weights.map(lambda of: "histogram:" + ",".join(f"{a}={b}" for a, b in of.items())),
)


def draws(lengths, count=20_000, seed=0):
    rng = numpy.random.default_rng(seed)
    return numpy.array([lengths.sample(rng) for _ in range(count)])


@given(texts, st.integers(0, 2**32))
def test_draws_keep_the_bounds_and_descriptions_read_back(text, seed):
    lengths = parse_lengths(text, "isl")
    found = draws(lengths, 30, seed)
    assert 1 <= lengths.minimum <= found.min()
    assert found.max() <= lengths.maximum
    assert lengths.minimum - 0.5 <= lengths.mean <= lengths.maximum + 0.5
    assert isinstance(lengths.nominal, int)
    assert isinstance(lengths.sample(numpy.random.default_rng(seed)), int)
    assert parse_lengths(lengths.describe(), "isl") == lengths
    assert pickle.loads(pickle.dumps(lengths)) == lengths
    assert (found == draws(pickle.loads(pickle.dumps(lengths)), 30, seed)).all()


@pytest.mark.parametrize(
    "text",
    [
        "17",
        "uniform:0.8:8192",
        "uniform:0.001:100",
        "normal:1024:200",
        "normal:5:4",
        "normal:100:300:50:150",
        "normal:100:20:150:160",
        "histogram:128=0.2,1024=0.5,8192=0.3",
        "histogram:1=1,2=0,3=9",
    ],
)
def test_sample_means_agree_with_the_stated_mean(text):
    lengths = parse_lengths(text, "isl")
    found = draws(lengths)
    # Five standard errors, and what rounding a cut distribution may move the mean by.
    slack = 5 * found.std() / math.sqrt(len(found)) + 0.02 * (lengths.maximum > lengths.minimum)
    assert abs(found.mean() - lengths.mean) <= slack


def test_a_normal_follows_the_distribution_by_rejection():
    lengths = parse_lengths("normal:20:15:1:30", "isl")
    rng = numpy.random.default_rng(1)
    oracle = numpy.round(rng.normal(20, 15, 400_000)).astype(int)
    oracle = oracle[(oracle >= 1) & (oracle <= 30)]
    found = numpy.bincount(draws(lengths, 40_000), minlength=31) / 40_000
    expected = numpy.bincount(oracle, minlength=31) / len(oracle)
    assert numpy.abs(found - expected).max() < 0.006


def test_a_uniform_takes_every_length_alike():
    lengths = parse_lengths("uniform:0.8:10", "isl")
    assert (lengths.minimum, lengths.maximum, lengths.nominal) == (8, 10, 10)
    counts = numpy.bincount(draws(lengths, 30_000), minlength=11)
    assert counts[:8].sum() == 0
    assert numpy.abs(counts[8:] / 10_000 - 1).max() < 0.05


def test_the_bounds_of_a_uniform():
    lengths = parse_lengths("uniform:0.8:8192", "isl")
    assert (lengths.minimum, lengths.maximum, lengths.nominal) == (round(0.8 * 8192), 8192, 8192)


def test_a_histogram_keeps_its_shares(tmp_path):
    lengths = parse_lengths("histogram:128=2,1024=5,8192=3", "isl")
    found = draws(lengths)
    shares = [(found == length).mean() for length in (128, 1024, 8192)]
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=0.02)
    assert lengths.nominal == round(0.2 * 128 + 0.5 * 1024 + 0.3 * 8192)
    for name, content in (
        ("a", {"128": 2, "1024": 5, "8192": 3}),
        ("b", [[128, 2], [1024, 5], [8192, 3]]),
    ):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(content))
        assert parse_lengths(f"histogram:@{file}", "isl") == lengths


def test_lengths_of_weight_zero_are_no_bounds():
    lengths = parse_lengths("histogram:1=0,5=1,9=0", "isl")
    assert (lengths.minimum, lengths.maximum, lengths.nominal) == (5, 5, 5)


def test_a_normal_without_bounds_is_cut_at_four_deviations():
    lengths = parse_lengths("normal:1024:200", "isl")
    assert (lengths.minimum, lengths.maximum, lengths.nominal) == (224, 1824, 1024)
    assert lengths.describe() == "normal:1024:200:224:1824"
    assert parse_lengths("normal:100:50", "isl").minimum == 1


def test_a_narrow_window_of_a_wide_normal_needs_one_draw():
    class Counted:
        def __init__(self):
            self.draws = 0
            self._rng = numpy.random.default_rng(0)

        def random(self):
            self.draws += 1
            return self._rng.random()

    rng = Counted()
    lengths = parse_lengths("normal:1000:100000:999:1001", "isl")
    assert {lengths.sample(rng) for _ in range(100)} == {999, 1000, 1001}
    assert rng.draws == 100


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("normal:1024:200", [1251, 916, 984, 976, 747, 1127]),
        ("uniform:0.8:8192", [6822, 7983, 8147, 7038, 7068, 7242]),
        ("histogram:128=0.2,1024=0.5,8192=0.3", [8192, 1024, 1024, 1024, 128, 1024]),
    ],
)
def test_golden_draws(text, values):
    rng = numpy.random.Generator(numpy.random.Philox(key=7))
    assert [parse_lengths(text, "isl").sample(rng) for _ in range(6)] == values


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-3",
        "1.5",
        "many",
        "99999999999",
        "uniform:8192",
        "uniform:0:8192",
        "uniform:1.1:8192",
        "uniform:nan:8192",
        "uniform:0.5:0",
        "normal:100",
        "normal:100:0",
        "normal:100:nan",
        "normal:inf:1",
        "normal:0:1",
        "normal:100:10:50",
        "normal:100:10:120:90",
        "normal:100:10:0:200",
        "normal:100:10:1:1e300",
        "normal:100:1:500:600",
        "normal:100:1:1:50",
        "histogram:",
        "histogram:128",
        "histogram:128=1=2",
        "histogram:128=-1,4=2",
        "histogram:128=0",
        "histogram:128=nan",
        "histogram:128=inf",
        "histogram:128=1,128=2",
        "histogram:0=1",
        "gamma:1:2",
    ],
)
def test_refusals_name_the_option_in_one_line(text):
    with pytest.raises(InputError) as error:
        parse_lengths(text, "osl")
    assert error.value.field == "osl"
    assert "\n" not in str(error.value)
    assert "unpack" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", "3", '"128"', "[[128.7, 1]]", "[[true, 1]]", "[128]", '[["a", 1]]'],
)
def test_refusals_of_a_file(tmp_path, content):
    file = tmp_path / "lengths.json"
    file.write_text(content)
    with pytest.raises(InputError) as error:
        parse_lengths(f"histogram:@{file}", "isl")
    assert error.value.field == "isl"
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="name a file to read"):
        parse_lengths(f"histogram:@{tmp_path / 'none.json'}", "isl")
