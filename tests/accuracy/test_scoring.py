"""Extraction and comparison against what lm-eval said, and as properties."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.accuracy.scoring import INVALID, METRICS, extract, is_right, normalised

GOLDEN = json.loads((Path(__file__).parent / "golden" / "lm_eval_gsm8k.json").read_text())


@pytest.mark.parametrize("metric", METRICS)
def test_every_answer_is_read_and_judged_as_lm_eval_does(metric):
    judged = set()
    for each in GOLDEN["scores"]:
        reference = GOLDEN["test"][each["item"]]["answer"]
        taken, right = each[metric]
        assert extract(each["answer"], metric) == taken, each
        assert is_right(each["answer"], reference, metric) == bool(right), each
        judged.add(bool(right))
    assert judged == {True, False}
    assert len(GOLDEN["scores"]) == 48


NUMBERS = st.integers(-(10**9), 10**9)


@given(NUMBERS, st.text(max_size=40), st.booleans())
def test_a_marked_number_is_found_whatever_stands_before_it(number, before, commas):
    said = f"{number:,}" if commas else str(number)
    # A mark of the text's own, with a number behind it, would come first.
    answer = f"{before.replace('#', '')}\n#### {said}"
    assert is_right(answer, f"steps\n#### {number}", "strict")
    assert is_right(answer, f"steps\n#### {number}", "flexible")
    assert not is_right(answer, f"steps\n#### {number + 1}", "strict")
    assert not is_right(answer, f"steps\n#### {number + 1}", "flexible")


@given(st.text(alphabet=st.characters(exclude_characters="0123456789$.,"), max_size=60))
def test_without_a_digit_there_is_no_number(text):
    assert extract(text, "strict") == extract(text, "flexible") == INVALID
    assert not is_right(text, "#### 3", "strict")


@given(NUMBERS, NUMBERS)
def test_strict_takes_the_first_mark_and_flexible_the_last_number(first, second):
    answer = f"#### {first}\n#### {second}"
    assert extract(answer, "strict") == str(first)
    assert extract(answer, "flexible") == str(second)


@given(NUMBERS)
def test_a_worked_answer_and_its_number_are_the_same_once_normalised(number):
    assert normalised(f"2 + 2 = 4\n#### ${number:,}.") == normalised(str(number)) == str(number)
