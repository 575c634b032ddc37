"""`upcurve sweep`, from the command line to the store."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.sweep.examples import recipe_file
from upcurve.cli import run
from upcurve.records.store import Store


def sweep(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        run(["sweep", *map(str, arguments)])
    return ended.value.code


def test_json_prints_a_line_for_each_point_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_file(tmp_path / "small.yaml", change="https://example.org/pull/1")
    store = tmp_path / "store"
    assert sweep(path, "--set", "repeats=1", "--store", store, "--json") == 0
    output, errors = capsys.readouterr()
    points = [json.loads(line) for line in output.splitlines()]
    assert [point["concurrency"] for point in points] == [1, 2]
    for point in points:
        assert (point["series"], point["recipe"], point["repeat"]) == ("small", "small", 0)
        assert (point["tp"], point["gpus"], point["isl"], point["osl"]) == (1, 1, 8, 4)
        assert point["tput_per_gpu"] > 0
        assert point["interactivity"] > 0
        assert {"p50", "p90", "p99"} <= set(point["ttft_ms"])
    assert "concurrency 2: " in errors
    assert "upcurve: 2 points measured, 0 skipped, 0 lost" in errors
    with Store.open(store, create=False) as opened:
        found = opened.find_run(points[0]["run"])
        stored = [point.tput_per_gpu for point in opened.points("small")]
    assert found is not None
    assert found[0].change == "https://example.org/pull/1"
    assert stored == [point["tput_per_gpu"] for point in points]


def test_a_sweep_ends_with_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe_file(tmp_path / "small.yaml", repeats=1)
    assert sweep(path, "--store", tmp_path / "store") == 0
    output, _ = capsys.readouterr()
    rows = [line for line in output.splitlines() if "small" in line]
    assert len(rows) == 2
    assert "tok/s/GPU" in output


def test_a_resumed_sweep_measures_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_file(tmp_path / "small.yaml", repeats=1)
    store = ["--store", tmp_path / "store"]
    assert sweep(path, *store) == 0
    capsys.readouterr()
    assert sweep(path, *store, "--resume", "--dry-run") == 0
    assert "nothing left (measured already: 1, 2)" in capsys.readouterr().out
    assert sweep(path, *store, "--resume") == 0
    output, errors = capsys.readouterr()
    assert output == ""
    assert "0 points measured, 2 skipped, 0 lost" in errors


def test_a_failed_launch_is_exit_1_and_a_line_of_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = {"name": "test", "command": [sys.executable, "-c", "raise SystemExit('no {port}')"]}
    path = recipe_file(tmp_path / "broken.yaml", engine=engine, repeats=1)
    assert sweep(path, "--store", tmp_path / "store", "--json") == 1
    output, errors = capsys.readouterr()
    (line,) = [json.loads(line) for line in output.splitlines()]
    assert (line["series"], line["concurrency"], line["lost"]) == ("small", None, [1, 2])
    assert "it ended with status 1; its last lines" in line["error"]
    assert "upcurve: 0 points measured, 0 skipped, 2 lost" in errors


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "Missing argument 'RECIPES...'"),
        (["nothing.yaml"], "recipe nothing.yaml: there is no such file; name a YAML file"),
        (["small.yaml", "--set", "tpp=1"], "recipe small.yaml: tpp: unknown key; did you mean"),
        (["small.yaml", "--set", "tp"], "--set: 'tp' sets nothing; write key=value"),
        (["small.yaml", "--set", "tp=2"], "--set tp: the command does not say {tp}: the engine"),
        (["bad.yaml"], "engine.command: there is no program 'no-such-engine'; install it"),
        (["small.yaml", "--resume", "--dry-run"], "store: there is none in ./results"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UPCURVE_STORE", raising=False)
    recipe_file(tmp_path / "small.yaml")
    engine = {"name": "test", "command": "no-such-engine --port {port}"}
    recipe_file(tmp_path / "bad.yaml", engine=engine)
    assert sweep(*arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.splitlines() == [errors.strip()]
    assert errors.startswith(f"upcurve: error: {line}")
