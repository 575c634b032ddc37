"""`upcurve bisect` on a repository of an engine of known speed, over HTTP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sweep.repositories import git, new_repository
from upcurve.cli import run
from upcurve.records.store import Store

ENGINE = """\
import pathlib, runpy, sys
interval = (pathlib.Path(__file__).parent / sys.argv[1]).read_text().strip()
if interval == "broken":
    raise SystemExit("this commit does not start")
serve = ["known-server", "--first-ms", "2", "--interval-ms", interval, "--model", "small"]
sys.argv = ["upcurve", *serve, "--port", sys.argv[2]]
runpy.run_module("upcurve", run_name="__main__")
"""

INTERVALS = ["12", "12", "broken", "12", "24", "24"]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    commits = [{"engine.py": ENGINE, "interval": each} for each in INTERVALS]
    return new_repository(tmp_path / "clone", commits)


def recipe_file(path: Path, **changes: Any) -> Path:
    command = [sys.executable, "{repository}/engine.py", "interval", "{port}"]
    engine = {"name": "toy", "command": command, "health": {"timeout_s": 300}}
    values = {
        "name": "toy",
        "model": "small",
        "hardware": "CPU",
        "engine": engine,
        "workload": {"isl": 8, "osl": 12, "requests_per_stream": 3, "warmup": 1},
        "concurrency": [1, 2],
    } | changes
    path.write_text(yaml.safe_dump(values))
    return path


def bisect(*words: object) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        run(["bisect", *map(str, words)])
    return ended.value.code


def test_a_killed_bisect_goes_on_and_names_the_commit(
    clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, store = git(clone, "rev-parse", "HEAD"), tmp_path / "store"
    words = [
        *[recipe_file(tmp_path / "toy.yaml"), "--repository", clone, "--good", "main~5"],
        *["--bad", "main", "--concurrency", 1, "--metric", "tpot", "--store", store],
        *["--setup", 'cp interval "$UPCURVE_REPOSITORY/built"'],
        *["--set", "workload.seed=1", "--json"],
    ]
    command = [sys.executable, "-m", "upcurve", "bisect", *map(str, words)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stderr is not None
        assert any("bad over good +" in line for line in killed.stderr)
        killed.send_signal(signal.SIGKILL)
    assert len(list((store / "worktrees").glob("*/*/built"))) >= 2

    assert bisect(*words) == 0
    output, errors = capsys.readouterr()
    answer = json.loads(output)
    assert (answer["answer"], answer["first_bad"]["subject"]) == ("found", "commit 4")
    assert answer["first_bad"]["commit"] == git(clone, "rev-parse", "main~1").strip()
    assert answer["reused"] >= 6
    assert 1.5 < answer["move"]["ratio"] < 2.5
    low, high = answer["move"]["interval"]
    assert low < answer["move"]["ratio"] < high
    verdicts = {each["subject"]: each["verdict"] for each in answer["decisions"]}
    assert verdicts == {"commit 2": "skipped", "commit 3": "good", "commit 4": "bad"}
    assert "this commit does not start" in errors
    assert list((store / "worktrees").iterdir()) == []
    assert git(clone, "worktree", "list").count("\n") == 1
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "rev-parse", "HEAD") == head
    with Store.open(store, create=False) as opened:
        rows = list(opened.rows())
    assert len(rows) == answer["runs"]
    assert {row["engine_commit"][:10] for row in rows} == {
        row["series"].removeprefix("toy@") for row in rows
    }
    of_good = [row["repeat"] for row in rows if row["engine_commit"] == answer_good(clone)]
    assert sorted(of_good) == list(range(len(of_good)))


def answer_good(clone: Path) -> str:
    return git(clone, "rev-parse", "main~5").strip()


def test_ends_that_do_not_start_are_exit_1_in_words(
    clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [recipe_file(tmp_path / "toy.yaml"), "--repository", clone, "--at", 40]
    ends = ["--good", "main~3", "--bad", "main~2", "--store", tmp_path / "store"]
    assert bisect(*words, *ends) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert "upcurve: good or bad gives no figures: the engine failed" in errors
    assert bisect(*words, *ends, "--setup", "echo out of tape; exit 3") == 1
    assert "its setup failed: it ended with status 3" in capsys.readouterr().err
    assert list((tmp_path / "store" / "worktrees").iterdir()) == []


def test_dry_run_starts_nothing(
    clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [recipe_file(tmp_path / "toy.yaml"), "--repository", clone, "--concurrency", 1]
    ends = ["--good", "main~5", "--bad", "main", "--dry-run", "--store", tmp_path / "store"]
    assert bisect(*words, *ends) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 1)[1] for line in lines[:6]] == [f"commit {n}" for n in range(6)]
    assert "5 commits along first parents" in lines[6]
    assert "at most 3 decisions" in lines[6]
    assert lines[7].endswith("FOLDER/engine.py interval PORT")
    assert bisect(*words, *ends, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["revisions"]) == 6
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--concurrency", 1, "--at", 3], "--at or --concurrency: both are given; give one"),
        ([], "--at or --concurrency: neither is given; give one"),
        (["--at", 3, "--metric", "ttft"], "--metric: ttft cannot be read --at; give --concurr"),
        (["--at", 3, "--good", "nope"], "--good: there is no commit 'nope'"),
        (["--at", 3, "--bad", "main~5"], "--bad: it is the same commit as --good"),
        (["--at", 3, "--set", "engine.command=a {port}"], "engine.command: it is the same for"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    clone: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[object],
    line: str,
) -> None:
    path = recipe_file(tmp_path / "toy.yaml")
    ends = ["--repository", clone, "--good", "main~5", "--bad", "main"]
    assert bisect(path, *ends, *words, "--store", tmp_path / "store") == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"upcurve: error: {line}")
    assert errors.count("\n") == 1
