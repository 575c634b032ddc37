from __future__ import annotations

import copy
import hashlib
import json
import math
import random
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.errors import InputError
from upcurve.records.fingerprint import SpeedFacts, canonical_json, fingerprint, model_digests

FACTS = SpeedFacts(
    engine="sglang",
    engine_version="0.5.12",
    engine_commit="abc",
    image="img@sha256:1",
    command=["serve", "--tp", "{tp}"],
    environment={"A": "1", "B": "2"},
    model="Q",
    model_files={"config.json": "10:aa"},
    precision="fp8",
    workload={"isl": 8192, "osl": 1024, "sampling": {"temperature": 0.0}},
    hardware="H200",
    software={"driver": "570"},
    harness_version="0.1.0",
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALAR = st.none() | st.booleans() | st.integers() | FINITE | st.text()
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def shuffled(value: object, chance: random.Random) -> object:
    """Return an equal value whose dicts were filled in another order."""
    if isinstance(value, dict):
        names = list(value)
        chance.shuffle(names)
        return {name: shuffled(value[name], chance) for name in names}
    return [shuffled(each, chance) for each in value] if isinstance(value, list) else value


def exact(value: object) -> object:
    """Return what tells values apart that Python calls equal: 1, 1.0, True; 0.0, -0.0."""
    if isinstance(value, dict):
        return {name: exact(each) for name, each in value.items()}
    if isinstance(value, list):
        return [exact(each) for each in value]
    return (type(value).__name__, repr(value))


@given(VALUE, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value: object, chance: random.Random) -> None:
    assert canonical_json(shuffled(value, chance)) == canonical_json(value)


@given(VALUE, VALUE)
def test_texts_are_equal_only_where_values_are(one: object, other: object) -> None:
    assert (canonical_json(one) == canonical_json(other)) == (exact(one) == exact(other))


@given(VALUE)
def test_canonical_text_is_json_of_the_same_value(value: object) -> None:
    assert exact(json.loads(canonical_json(value))) == exact(value)


@given(st.data())
def test_any_change_of_any_fact_changes_the_fingerprint(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([each.name for each in fields(SpeedFacts)]))
    value = copy.deepcopy(getattr(FACTS, name))
    if isinstance(value, str):
        changed = data.draw(st.text().filter(lambda text: text != value))
    elif isinstance(value, list):
        changed = data.draw(st.permutations([*value, "--flag"]))
    else:
        changed = value | {data.draw(st.text().filter(lambda key: key not in value)): "x"}
    assert fingerprint(replace(FACTS, **{name: changed})) != fingerprint(FACTS)


def test_the_fingerprint_stays_what_it_is() -> None:
    """Stored fingerprints are compared with new ones: the form of the text is a contract."""
    text = (
        '{"command":["serve","--tp","{tp}"],"engine":"sglang","engine_commit":"abc",'
        '"engine_version":"0.5.12","environment":{"A":"1","B":"2"},"hardware":"H200",'
        '"harness_version":"0.1.0","image":"img@sha256:1","model":"Q",'
        '"model_files":{"config.json":"10:aa"},"precision":"fp8","software":{"driver":"570"},'
        '"workload":{"isl":8192,"osl":1024,"sampling":{"temperature":0.0}}}'
    )
    assert fingerprint(FACTS) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, {1: "x"}, [{"a": {None: 1}}], {"a": object()}]
)
def test_values_without_a_canonical_form(value: object) -> None:
    with pytest.raises(InputError, match="fingerprint: "):
        canonical_json(value)


def test_model_files_by_content(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / ".cache").mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model-1.safetensors").write_bytes(b"\x01" * 3_000_000)
    (folder / "sub" / "x.txt").write_text("x")
    (folder / ".cache" / "lock").write_text("noise")
    blob = tmp_path / "blob"
    blob.write_text("tokens")
    (folder / "tokenizer.json").symlink_to(blob)
    digests = model_digests(folder)
    assert digests == {
        "config.json": "2:" + hashlib.sha256(b"{}").hexdigest(),
        "model-1.safetensors": "3000000:" + hashlib.sha256(b"\x01" * 3_000_000).hexdigest(),
        "sub/x.txt": "1:" + hashlib.sha256(b"x").hexdigest(),
        "tokenizer.json": "6:" + hashlib.sha256(b"tokens").hexdigest(),
    }
    (folder / "model-1.safetensors").write_bytes(b"\x01" * 2_999_999 + b"\x02")
    assert model_digests(folder) != digests


def test_folders_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model: .*none is no folder"):
        model_digests(tmp_path / "none")
    with pytest.raises(InputError, match=r"model: .* holds no files"):
        model_digests(tmp_path)
