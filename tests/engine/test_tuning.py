"""Launch parameters as data: what is found, what is refused, who says so."""

import json
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine import tuning
from upcurve.engine.errors import EngineInputError

GPU = torch.device("cuda", 0)
MEASUREMENT = {
    "by": "somebody",
    "date": "2026-11-23",
    "hardware": "1 x NVIDIA H200",
    "versions": {"torch": "2.11"},
    "command": "python benchmarks/tune.py",
}
ENTRY = {
    "operation": "product",
    "shape": {"rows": 64, "columns": 4096, "dtype": "float8_e4m3fn"},
    "parameters": {"warps": 8, "stages": 2},
    "microseconds": 3.5,
    "rule_microseconds": 4.0,
    "measurement": "first",
}
FILE = {"chip": "nvidia-h200", "measurements": {"first": MEASUREMENT}, "entries": [ENTRY]}


@dataclass(frozen=True)
class Launch:
    warps: int
    stages: int = 3


@pytest.fixture(autouse=True)
def _h200(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H200")
    monkeypatch.delenv(tuning.VARIABLE, raising=False)
    tuning.forget()
    yield
    tuning.forget()


@pytest.fixture
def given_file(tmp_path, monkeypatch):
    """Return what writes a file that lookups read."""

    def write(content) -> None:
        path = tmp_path / "chip.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setenv(tuning.VARIABLE, str(path))

    return write


RULE = Launch(warps=4, stages=3)


def find(rows=64, device=GPU, **others):
    where = {"rows": rows, "columns": 4096, "dtype": torch.float8_e4m3fn, **others}
    return tuning.choose(RULE, "product", device, **where)


def test_what_was_measured_is_found_for_the_rows_that_it_holds_for(given_file):
    given_file(FILE)
    assert find(64) == find(33) == Launch(warps=8, stages=2)
    assert find(32) is find(65) is find(columns=2048) is find(dtype=torch.bfloat16) is RULE


def test_there_is_none_for_the_cpu_an_unknown_chip_or_where_none_is_wanted(given_file, monkeypatch):
    given_file(FILE)
    assert find(device=torch.device("cpu")) is RULE
    monkeypatch.setenv(tuning.VARIABLE, "none")
    tuning.forget()
    assert find() is RULE
    monkeypatch.delenv(tuning.VARIABLE)
    monkeypatch.setattr(tuning, "chip_of", lambda device: "acme-9000")
    tuning.forget()
    assert find() is RULE


def test_a_file_is_read_once(given_file, tmp_path):
    given_file(FILE)
    assert find() != RULE
    (tmp_path / "chip.json").unlink()
    assert find() != RULE
    assert find(8) is RULE


def test_the_name_of_a_chip_is_its_driver_s(monkeypatch):
    tuning._chip.cache_clear()
    assert tuning.chip_of(GPU) == "nvidia-h200"
    tuning._chip.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "AMD Instinct MI355X")
    assert tuning.chip_of(GPU) == "amd-instinct-mi355x"
    tuning._chip.cache_clear()


def changed(**entry):
    return {**FILE, "entries": [{**ENTRY, **entry}]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "truncated"),
        ({"entries": []}, "missing required field `chip`"),
        (changed(microseconds="3"), "$.entries[0].microseconds"),
        (changed(parameters={"warps": 4.5}), "$.entries[0].parameters"),
        (changed(speed=1), "unknown field `speed`"),
        (changed(shape={"rows": 48}), "rows 48 is not a power of two"),
        (changed(shape={"capacity": 9472}), "capacity 9472 is not a power of two"),
        (changed(measurement="second"), "no measurement is called 'second'"),
        ({**FILE, "entries": [ENTRY, ENTRY]}, "$.entries[1]: this shape is there twice"),
        (
            {**FILE, "measurements": {"first": {**MEASUREMENT, "date": "yesterday"}}},
            "$.measurements[...].date",
        ),
        (changed(parameters={"wraps": 4}), "its parameters are warps, stages"),
    ],
)
def test_a_file_that_is_not_valid_is_one_line(given_file, content, said):
    given_file(content)
    with pytest.raises(EngineInputError) as caught:
        find()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv(tuning.VARIABLE, str(tmp_path / "none.json"))
    with pytest.raises(EngineInputError, match=r"none\.json: No such file"):
        find()


def test_who_tries_learns_what_is_asked_for_and_answers(given_file):
    given_file(FILE)
    where = tuning.key("product", ENTRY["shape"])
    with tuning.trial() as trial:
        assert find(40) == Launch(warps=8, stages=2)
        assert trial.asked == {where: RULE}
        trial.given[where] = Launch(warps=1)
        assert find(40) == Launch(warps=1)
        assert find(8) is RULE
    assert find(40) == Launch(warps=8, stages=2)


@given(st.integers(1, 2**20))
def test_a_bucket_is_the_next_power_of_two(rows):
    size = tuning.bucket(rows)
    assert size.bit_count() == 1
    assert size >= rows > size // 2
