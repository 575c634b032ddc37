"""What `upcurve bisect` says of answers whose truth is known."""

from __future__ import annotations

import json

from tests.sweep.test_bisection import search, simulated, step
from upcurve.cli.bisect_view import decisions_table, json_object, words
from upcurve.sweep.bisection import Answer
from upcurve.sweep.revision import Revision

REVISIONS = [Revision(f"{number:040d}", f"commit {number}") for number in range(13)]


def text(answer: Answer) -> str:
    return "\n".join(words(answer, REVISIONS, 0.05))


def test_one_commit_is_named_with_its_move() -> None:
    answer = search(simulated(step(7, ratio=0.8), 0.01, 0))
    said = text(answer)
    assert f"First bad commit: {7:040d} commit 7" in said
    assert "wrong in at most 0.05 of cases" in said
    assert "Warning" not in said
    found = json.loads(json.dumps(json_object(answer, REVISIONS)))
    assert (found["answer"], found["first_bad"]["subject"]) == ("found", "commit 7")
    low, high = found["move"]["interval"]
    assert low < 0.8 < high
    assert sum(each["runs"] for each in found["decisions"]) < found["runs"]
    assert decisions_table(answer, REVISIONS).row_count == len(answer.decisions)


def test_a_range_lists_its_commits() -> None:
    answer = search(simulated(step(7, ratio=0.8), 0.01, 0, broken=(6,)))
    said = text(answer)
    assert "No single commit can be named; the first bad one is among:\n" in said
    assert all(f"  {number:040d} commit {number}\n" in said for number in (6, 7))
    found = json_object(answer, REVISIONS)
    assert (found["answer"], found["first_bad"]) == ("range", None)
    assert [each["subject"] for each in found["candidates"]] == ["commit 6", "commit 7"]
    skipped = next(each for each in found["decisions"] if each["verdict"] == "skipped")
    assert skipped["reason"] == "it does not build"


def test_no_difference_says_what_would_have_been_seen() -> None:
    answer = search(simulated([1.0] * 13, 0.02, 1))
    (said,) = words(answer, REVISIONS, 0.05)
    assert said.startswith("No difference: bad over good ")
    assert said.endswith(" % would have been seen in 19 of 20 cases.")
    found = json_object(answer, REVISIONS)
    assert found["answer"] == "no_difference"
    assert 0.01 < found["calibration"]["visible"] < 0.08


def test_too_few_runs_are_said_to_show_nothing() -> None:
    answer = search(simulated(step(7, ratio=0.5), 0.01, 0), max_runs=3)
    assert "so few runs can show no difference; give a higher --max-runs" in text(answer)
    assert json_object(answer, REVISIONS)["calibration"]["visible"] is None


def test_two_moves_are_told_from_one() -> None:
    levels = [1.0] * 4 + [0.9] * 5 + [0.8] * 4
    answer = search(simulated(levels, 0.005, 0))
    assert "other commits between them move it too" in text(answer)
