"""`upcurve eval`, from the command line to the store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.accuracy.examples import answers, engine, items, write_answers, write_items
from tests.processes import until
from tests.records.examples import point_record, run_record
from upcurve.accuracy.answers import read_answers
from upcurve.cli import run
from upcurve.records.store import Store

GIVEN = items(50)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("data") / "items.jsonl", GIVEN)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return the URL of an engine that has 5 of 50 answers wrong."""
    file = write_answers(
        tmp_path_factory.mktemp("engine") / "a.json", answers(GIVEN, set(range(5)))
    )
    with engine("--answers", file) as url:
        yield url


@pytest.fixture(scope="module")
def better(tmp_path_factory):
    """Return the URL of an engine that has all answers right."""
    file = write_answers(tmp_path_factory.mktemp("engine") / "a.json", answers(GIVEN, set()))
    with engine("--answers", file) as url:
        yield url


@pytest.fixture
def evaluate(capsys, data, tmp_path):
    """Give a function that runs the command; it returns exit code, stdout, stderr."""

    def call(url, *arguments, store=tmp_path / "store"):
        given = ["--base-url", url, "--model", "small", "--task", "gsm8k", "--data", data]
        with pytest.raises(SystemExit) as ended:
            run(["eval", *map(str, [*given, "--shots", 0, "--store", store, *arguments])])
        return ended.value.code, *capsys.readouterr()

    return call


def measured(store, series, *concurrencies):
    """Keep points of a series, as a bench would."""
    with Store.open(store) as opened:
        run_id = opened.begin_run(run_record(series=series))
        for each in concurrencies:
            opened.add_point(run_id, point_record(isl=300, concurrency=each))
        opened.end_run(run_id, "complete")


def test_json_is_an_object_for_each_concurrency(evaluate, server, tmp_path):
    code, out, err = evaluate(server, "--concurrency", "1,8", "--minimum", 0.9, "--json")
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert [each["concurrency"] for each in found] == [1, 8]
    for each in found:
        assert (each["task"], each["version"], each["n"], each["metric"]) == (
            *("gsm8k", "3", 50, "strict"),
        )
        assert each["score"] == each["scores"]["flexible"] == 0.9
        assert each["interval"] == pytest.approx([0.7864, 0.9565], abs=1e-4)
        assert (each["passed"], each["minimum"], each["failed"]) == (True, 0.9, 0)
        assert len(read_answers(tmp_path / "store" / each["answers"])) == 50
        assert each["same_process"] is None
    assert "passed at concurrency 8: 0.9000 is at least the minimum 0.9" in err


def test_the_table_and_a_gate_that_fails(evaluate, server):
    code, out, err = evaluate(server, "--minimum", 0.95)
    assert code == 1
    row = next(line for line in out.splitlines() if "FAILED" in line)
    assert "0.9000" in row
    assert "0.7864 to 0.9565" in row
    assert err.splitlines()[-1] == (
        "upcurve: error: the gate failed at concurrency 16: 0.9000 is below the minimum 0.95"
    )


def test_without_a_gate_a_score_is_told_and_nothing_judged(evaluate, server):
    code, out, _ = evaluate(server, "--json", "--limit", 10)
    found = json.loads(out)
    assert (code, found["n"], found["score"], found["passed"]) == (0, 10, 0.5, None)


def test_items_without_an_answer_are_told_with_the_reason(evaluate, data, tmp_path, monkeypatch):
    monkeypatch.setattr("upcurve.accuracy.asking.PAUSES_S", ())
    # One question is tried out first, and one is answered.
    with engine("--answers", write_answers(tmp_path / "a.json", {}), "--fail-after", 3) as url:
        code, _, err = evaluate(url, "--limit", 3, "--concurrency", 1)
    assert code == 1
    assert err.splitlines()[-1] == (
        "upcurve: error at concurrency 1: 2 items got no answer (HTTP 500: out of pages)"
    )


def test_an_outcome_is_recorded_at_the_point_and_held_against_another_series(
    evaluate, server, better, tmp_path
):
    store = tmp_path / "store"
    measured(store, "feb", 4, 8)
    measured(store, "may", 4)
    at = ["--concurrency", 4, "--json"]
    code, out, _ = evaluate(better, *at, "--series", "feb", "--minimum", 0.9)
    assert (code, json.loads(out)["context"]) == (0, 300)  # the point's own
    code, out, err = evaluate(server, *at, "--series", "may", "--baseline", "feb", "--margin", 0.3)
    found = json.loads(out)
    assert code == 0, err
    assert (found["passed"], found["paired"], found["lost"]) == (True, True, 5)
    assert found["difference"] == -0.1
    assert "at most 0.3 below feb, one-sided at 95 %; power 1.00 or more" in err
    code, out, err = evaluate(server, *at, "--series", "may", "--baseline", "feb", "--margin", 0.1)
    assert code == 1
    assert "not within the margin of 0.1" in err
    with Store.open(store, create=False) as opened:
        rows = {(row["series"], row["concurrency"]): row["accuracy"] for row in opened.rows()}
    assert rows["feb", 4]["passed"] is True
    assert rows["may", 4] == json.loads(out)
    assert rows["feb", 8] is None


def test_a_kill_costs_no_answer(evaluate, data, tmp_path):
    store, note = tmp_path / "store", tmp_path / "note"
    file = write_answers(tmp_path / "a.json", answers(GIVEN, {7}))
    hang = ["--hang-at", 14, "--hang-while", tmp_path / "hang"]
    (tmp_path / "hang").touch()
    with engine("--answers", file, "--note", note, *hang) as url:
        command = [sys.executable, "-m", "upcurve", "eval", "--base-url", url, "--model", "small"]
        command += ["--task", "gsm8k", "--data", str(data), "--shots", "0", "--concurrency", "2"]
        process = subprocess.Popen(
            [*command, "--store", str(store)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        # One is tried out, 12 are answered, 2 are not.
        assert until(lambda: note.exists() and note.read_text().count("\n") == 15, 60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        (kept,) = (store / "answers").iterdir()
        before = read_answers(kept)
        assert len(before) == 12
        (tmp_path / "hang").unlink()
        asked = note.read_text().count("\n")
        code, out, err = evaluate(url, "--concurrency", 2, "--resume", "--json")
        asked = note.read_text().count("\n") - asked
    found = json.loads(out)
    assert code == 0, err
    assert (found["score"], found["n"]) == (0.98, 50)
    assert (store / found["answers"]) == kept
    # One question is tried out first.
    assert asked == 50 - len(before) + 1
    after = read_answers(kept)
    assert {key: after[key] for key in before} == before
    assert len(after) == 50


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--minimum", 0.9, "--baseline", "feb"], "exclude each other"),
        (["--baseline", "feb"], "--baseline SERIES goes with --margin SHARE"),
        (["--margin", "0.1"], "--baseline SERIES goes with --margin SHARE"),
        (["--baseline", "feb", "--margin", 0.1], "series 'feb': not in the store"),
        (["--baseline", "may", "--margin", 0.1], "baseline: the store has no whole answers of"),
        (
            ["--series", "may", "--concurrency", 4, "--baseline", "may", "--margin", 0.1],
            "baseline: 'may' is what is evaluated; name another series",
        ),
        (["--series", "may"], "concurrency: may has no point of concurrency 16; measured are 4"),
        (["--series", "june"], "series 'june': not in the store"),
        (["--limit", 51], "limit: 51 of 50 items; give 1 to 50"),
        (["--max-tokens", 10**30], "--max-tokens'"),
        (["--context", 10**30], "--context'"),
        (["--shots", 50], "shots: 50 examples of 50 items"),
        (["--data", "nowhere.jsonl"], "data: nowhere.jsonl: No such file"),
        (["--task", "problems"], "data: the task problems ships its own"),
        (["--model", "other", "--base-url", "http://127.0.0.1:1"], "no server answers"),
    ],
)
def test_bad_input_is_one_line(evaluate, server, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    measured(tmp_path / "store", "may", 4)
    code, out, err = evaluate(server, *arguments)
    assert (code, out) == (2, "")
    assert says in err.splitlines()[-1]
    assert err.startswith("upcurve: error: ")
    assert err.count("\n") == 1


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        run(["eval", "--help"])
    assert "upcurve eval --base-url" in capsys.readouterr().out
