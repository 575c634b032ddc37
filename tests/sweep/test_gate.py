"""The accuracy gate of sweeps: where it looks, on which process, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.accuracy.examples import answers, items, write_answers, write_items
from tests.processes import gone, until
from tests.sweep.examples import recipe, recipe_file
from tests.sweep.test_runner import Log
from upcurve.accuracy.answers import read_answers
from upcurve.cli import run
from upcurve.errors import InputError
from upcurve.frontier.pareto import frontier
from upcurve.frontier.point import Point
from upcurve.records.store import Store
from upcurve.sweep.accuracy import Accuracy
from upcurve.sweep.gate import GateOutcome
from upcurve.sweep.plan import Launch
from upcurve.sweep.recipe import load_recipe
from upcurve.sweep.runner import run_sweep

GIVEN = items(30)


class GateLog(Log):
    def evaluating(self, launch: Launch, concurrency: int, state: Any) -> None:
        assert 0 <= state.ended <= state.of == 30
        self.events.append(("evaluating", concurrency))

    def evaluated(self, outcome: GateOutcome) -> None:
        self.events.append(("evaluated", outcome.concurrency, outcome.passed))


def flags(tmp_path: Path, wrong: set[int], name: str = "a") -> list[object]:
    file = write_answers(tmp_path / f"{name}.json", answers(GIVEN, wrong))
    return ["--answers", file]


def section(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    data = write_items(tmp_path / "items.jsonl", GIVEN)
    return {"task": "gsm8k", "data": str(data), "shots": 0, "minimum": 0.9} | changes


def gated(store: Store) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Return (series, concurrency, repeat) -> what is recorded."""
    return {
        (row["series"], row["concurrency"], row["repeat"]): row["accuracy"]
        for row in store.rows()
        if row["accuracy"]
    }


def test_points_are_evaluated_once_on_the_process_that_measured_them(tmp_path: Path) -> None:
    note = tmp_path / "note"
    asked = section(tmp_path, where=[1, 2])
    given = recipe(*flags(tmp_path, {4}), "--note", note, accuracy=asked)
    log = GateLog()
    with Store.open(tmp_path / "store") as store:
        result = run_sweep([given], store, resume=False, progress=log)
        found = gated(store)
        root = store.root
    assert not result.failures
    assert sorted(found) == [("small", 1, 0), ("small", 2, 0)]
    assert [each[1:] for each in log.events if each[0] == "evaluated"] == [(1, True), (2, True)]
    for (_, concurrency, _), kept in found.items():
        assert (kept["n"], kept["score"], kept["passed"]) == (30, pytest.approx(29 / 30), True)
        assert (kept["concurrency"], kept["context"]) == (concurrency, 8)
        assert kept["same_process"] is True
        assert len(read_answers(root / kept["answers"])) == 30
    # Two engines: the first answered all questions, each evaluation trying the first one out.
    engines = [line.split()[0] for line in note.read_text().splitlines()]
    counts = [engines.count(each) for each in dict.fromkeys(engines)]
    assert counts[0] - counts[1] == 2 * 31


def test_a_gate_that_fails_marks_the_points_and_is_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_file(
        tmp_path / "bad.yaml",
        *flags(tmp_path, {1, 2, 3, 4}),
        repeats=1,
        accuracy=section(tmp_path),
        series="bad",
    )
    store = str(tmp_path / "store")
    with pytest.raises(SystemExit) as ended:
        run(["sweep", str(path), "--store", store, "--json"])
    out, err = capsys.readouterr()
    assert ended.value.code == 1
    judged = [
        line["accuracy"] for each in out.splitlines() if "accuracy" in (line := json.loads(each))
    ]
    assert judged
    assert {each["passed"] for each in judged} == {False}
    assert "upcurve: error: the accuracy gate failed at small c" in err
    assert "0.8667 is below the minimum 0.9" in err
    # It says so again where nothing is left to do.
    with pytest.raises(SystemExit) as ended:
        run(["sweep", str(path), "--store", store, "--resume"])
    assert ended.value.code == 1
    assert "(an earlier sweep)" in capsys.readouterr().err
    # Everywhere else too: a comparison and an export.
    with pytest.raises(SystemExit) as ended:
        run(["compare", "bad", "--store", store, "--json", "--require-accuracy"])
    out, err = capsys.readouterr()
    assert ended.value.code == 1
    codes = [flag["code"] for at in json.loads(out)["series"][0]["at"] for flag in at["flags"]]
    assert "accuracy_failed" in codes
    assert "the accuracy check failed at the points around it" in err
    with pytest.raises(SystemExit):
        run(["export", "--store", store, "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert any(row["accuracy"] and row["accuracy"]["passed"] is False for row in rows)
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    with pytest.raises(SystemExit) as ended:
        run(["import", str(file), "--store", str(tmp_path / "other")])
    assert ended.value.code == 0
    with Store.open(store, create=False) as old, Store.open(tmp_path / "other") as new:
        assert gated(new) == gated(old)


def test_a_series_is_held_against_another_one_of_the_same_sweep(tmp_path: Path) -> None:
    first = recipe(
        *flags(tmp_path, {1}, "one"), series="before", repeats=1, accuracy=section(tmp_path)
    )
    bar = {"minimum": None, "baseline": "before", "margin": 0.2}
    same, worse = (
        recipe(
            *flags(tmp_path, wrong, name),
            name=name,
            repeats=1,
            accuracy=section(tmp_path, **bar),
        )
        for name, wrong in (("same", {2}), ("worse", set(range(12))))
    )
    with Store.open(tmp_path / "store") as store:
        result = run_sweep([first, same, worse], store, resume=False, progress=GateLog())
    passed = {(each.launch.recipe.name, each.passed) for each in result.gates}
    assert passed == {("small", True), ("same", True), ("worse", False)}
    last = result.gates[-1].accuracy
    assert (last["paired"], last["lost"], last["gained"]) == (True, 11, 0)
    assert last["baseline_score"] == pytest.approx(29 / 30)


def test_an_engine_that_dies_in_its_gate_leaves_points_without_accuracy(tmp_path: Path) -> None:
    # A probe, 1 + 2 and 2 + 4 requests go before; then two questions.
    asked = section(tmp_path, where="all")
    given = recipe(*flags(tmp_path, set()), "--die-after", 13, repeats=1, accuracy=asked)
    with Store.open(tmp_path / "store") as store:
        result = run_sweep([given], store, resume=False, progress=GateLog())
        assert gated(store) == {}
        assert len(store.points("small")) == 2
    (failure,) = result.failures
    assert failure.lost == ()
    assert [at for _, at in result.ungated] == [1, 2]
    assert failure.problem.startswith("no accuracy: it ended with status 7")


def test_a_killed_gate_is_made_up_for_with_new_points(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note, store, hang = tmp_path / "note", tmp_path / "store", tmp_path / "hang"
    hang.touch()
    path = recipe_file(
        tmp_path / "small.yaml",
        *flags(tmp_path, set()),
        "--note",
        note,
        *("--hang-at", 25, "--hang-while", hang),
        repeats=1,
        concurrency=[1, 2, 3],
        accuracy=section(tmp_path, where=[2]),
    )
    # 1 + (1 + 2) + (2 + 4) + (3 + 6) requests, then the questions.
    command = [sys.executable, "-m", "upcurve", "sweep", str(path), "--store", str(store)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert until(lambda: note.exists() and note.read_text().count("\n") >= 26)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert until(lambda: gone([int(note.read_text().split()[0])]))
    hang.unlink()
    with Store.open(store, create=False) as opened:
        assert gated(opened) == {}
        assert len(opened.points("small")) == 3
    with pytest.raises(SystemExit) as ended:
        run(["sweep", str(path), "--store", str(store), "--resume"])
    err = capsys.readouterr().err
    assert ended.value.code == 0, err
    assert "1 points measured, 3 skipped" in err
    with Store.open(store, create=False) as opened:
        assert [(p.concurrency, p.repeat) for p in opened.points("small")] == [
            *[(1, 0), (2, 0), (3, 0), (2, 1)]
        ]
        (kept,) = gated(opened).values()
    assert (kept["passed"], kept["concurrency"]) == (True, 2)
    # Once more, and nothing is left.
    with pytest.raises(SystemExit):
        run(["sweep", str(path), "--store", str(store), "--resume"])
    assert "0 points measured, 3 skipped" in capsys.readouterr().err


def test_a_sweep_that_chooses_its_points_gates_the_neighbours_of_its_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_file(
        tmp_path / "small.yaml",
        *flags(tmp_path, set()),
        # 25 tok/s/user at concurrency 3, 20 at 4.
        *("--token-ms", 10, "--batch-ms", 10),
        workload={"isl": 8, "osl": 8, "requests_per_stream": 2, "warmup": 1},
        repeats=1,
        concurrency=[1, 8],
        accuracy=section(tmp_path),
    )
    words = ["sweep", str(path), "--store", str(tmp_path / "store"), "--target-interactivity", "22"]
    with pytest.raises(SystemExit) as ended:
        run([*words, "--max-points", "4"])
    err = capsys.readouterr().err
    assert ended.value.code == 0, err
    with Store.open(tmp_path / "store", create=False) as opened:
        evaluated = {concurrency for _, concurrency, _ in gated(opened)}
        knots = frontier(opened.points("small"))
    below = [each for each in knots if each.interactivity <= 22]
    above = [each for each in knots if each.interactivity >= 22]
    # Both, unless the machine was so busy that none is faster.
    neighbours = {each.concurrency for each in (*below[-1:], *above[:1])}
    assert neighbours
    assert neighbours <= evaluated
    # Where the outcomes are lost, resuming measures those points again, with their gate.
    with Store.open(tmp_path / "store") as opened:
        for row_id in range(1, len(opened.points("small")) + 1):
            opened.set_accuracy(row_id, {})
    with pytest.raises(SystemExit) as ended:
        run([*words, "--max-points", "4", "--resume"])
    assert ended.value.code == 0
    with Store.open(tmp_path / "store", create=False) as opened:
        assert {concurrency for _, concurrency, _ in gated(opened)} == evaluated


POINTS = st.lists(
    st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=1, max_size=12, unique=True
)


@settings(deadline=None)
@given(POINTS, st.floats(1, 100))
def test_it_looks_at_ends_middle_and_both_neighbours_of_a_target(
    places: list[tuple[float, float]], target: float
) -> None:
    points = [Point(x, y, 1, 1, number) for number, (x, y) in enumerate(places, start=1)]
    accuracy = Accuracy(task="problems", minimum=0.9, targets=[target])
    chosen = accuracy.places(points, [])
    knots = frontier(points)
    assert {knots[0].concurrency, knots[-1].concurrency} <= chosen
    assert chosen <= {each.concurrency for each in knots}
    assert len(chosen) <= 5
    for left, right in pairwise(knots):
        if left.interactivity <= target <= right.interactivity:
            assert {left.concurrency, right.concurrency} <= chosen or target in (
                left.interactivity,
                right.interactivity,
            )
    assert accuracy.places(points, [("tput_per_gpu", target)]) >= chosen
    everywhere = accuracy.model_copy(update={"where": "all"})
    assert everywhere.places(points, []) == {each.concurrency for each in points}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"minimum": None}, "it has one gate, a minimum or a baseline"),
        ({"baseline": "x", "margin": 0.1}, "it has one gate, a minimum or a baseline"),
        ({"minimum": None, "baseline": "x"}, "a baseline goes with a margin"),
        ({"margin": 0.1}, "a baseline goes with a margin"),
        ({"task": "mmlu"}, "accuracy.task: 'mmlu' cannot be used"),
        ({"tsk": "problems"}, "unknown key; did you mean 'task'?"),
        ({"minimum": 90}, "minimum"),
        ({"where": []}, "where"),
        ({"where": "somewhere"}, "where"),
    ],
)
def test_a_section_that_cannot_be_used_is_one_line(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    path = recipe_file(tmp_path / "small.yaml", accuracy=section(tmp_path, **changes))
    with pytest.raises(InputError) as refused:
        load_recipe(path)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": "nowhere.jsonl"}, "data: nowhere.jsonl"),
        ({"where": [1, 3]}, "accuracy.where: .* does not measure; choose among 1, 2"),
        ({"minimum": None, "baseline": "june", "margin": 0.1}, "the store has no series 'june'"),
        ({"minimum": None, "baseline": "small", "margin": 0.1}, "is the recipe's own series"),
    ],
)
def test_a_gate_that_cannot_be_used_is_refused_before_anything_starts(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    given = recipe(accuracy=section(tmp_path, **changes))
    with Store.open(tmp_path / "store") as store:
        with pytest.raises(InputError, match=says):
            run_sweep([given], store, resume=False, progress=GateLog())
        assert list(store.rows()) == []


def test_a_gate_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    from upcurve.sweep.facts import Machine, run_records

    with_gate, without = recipe(accuracy=section(tmp_path)), recipe()
    one, other = run_records([with_gate, without], Machine.here())
    assert one.fingerprint == other.fingerprint
