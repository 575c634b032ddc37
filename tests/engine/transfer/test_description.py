"""What two engines have to have in common, and what is said where they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.transfer.described import described, shapes_of
from upcurve.engine.errors import EngineInputError
from upcurve.engine.memory.caches import CacheTypes
from upcurve.engine.transfer.description import Description, agree


def test_a_description_survives_its_way_and_only_tp_may_differ() -> None:
    ours = described(model={"rope_theta": 1e7, "layer_types": ("a", "b"), "ids": (1, 2)})
    theirs = Description.decode(replace(ours, tp=2).encode())
    assert theirs.tp == 2
    agree(ours, theirs)
    agree(theirs, ours)


FP8 = CacheTypes(torch.bfloat16, torch.float8_e4m3fn)


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (described(FP8), "dtype of keys and values: bfloat16 here, float8_e4m3fn at the other"),
        (described(FP8), "--kv-cache-dtype"),
        (described(page_size=8), "page size: 4 here, 8 at the other worker; give both the same"),
        (
            described(CacheTypes(torch.bfloat16, torch.bfloat16, torch.bfloat16)),
            "dtype of recurrent states: float32 here, bfloat16 at the other worker; give both the "
            "same --state-dtype",
        ),
        (
            described(CacheTypes(torch.float32, torch.bfloat16)),
            "dtype of activations: bfloat16 here, float32 at the other worker; give both the same "
            "--dtype",
        ),
        (described(weights="x"), "weights: w here, x at the other worker; serve the same check"),
        (described(model={"vocab_size": 401}), "vocab_size: 400 here, 401 at the other worker"),
        (described(model={"vocab_size": 400, "new": 1}), "new: None here, 1 at the other worker"),
        (described(shapes=shapes_of(head_dim=32)), "head dimension: 16 here, 32 at the other"),
        (described(shapes=shapes_of(num_hidden_layers=8)), "attention layers: (3,) here, (3, 7)"),
    ],
)
def test_a_difference_is_named_with_its_mend(theirs: Description, words: str) -> None:
    with pytest.raises(EngineInputError) as caught:
        agree(described(), Description.decode(theirs.encode()))
    assert words in str(caught.value)
    with pytest.raises(EngineInputError):
        agree(theirs, described())


@given(st.sampled_from([name for name in Description.__dataclass_fields__ if name != "tp"]))
def test_no_field_may_differ_but_tp(name: str) -> None:
    ours = described()
    value = getattr(ours, name)
    other = {int: 99, str: "other", tuple: (0,), dict: {"vocab_size": 1}}[type(value)]
    with pytest.raises(EngineInputError):
        agree(ours, replace(ours, **{name: other}))


def test_what_is_no_description_of_this_version() -> None:
    later = replace(described(), version=2).encode().replace(b'"page_size"', b'"page_sizes"')
    with pytest.raises(EngineInputError, match="protocol version: 1 here, 2 at the other worker"):
        Description.decode(later)
    with pytest.raises(EngineInputError, match="no description of an engine"):
        Description.decode(b"GET / HTTP/1.1")
    with pytest.raises(EngineInputError, match="no description of an engine"):
        Description.decode(b'{"version": 1}')
