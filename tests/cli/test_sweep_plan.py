"""`upcurve sweep --dry-run`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.sweep.examples import recipe_file
from upcurve.cli import run


def sweep(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        run(["sweep", *map(str, arguments), "--dry-run"])
    return ended.value.code


def test_it_prints_the_launches_and_the_command_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = {
        "name": "vllm",
        "command": "vllm serve {model} --port {port} --tensor-parallel-size {tp}",
        "env": {"VLLM_MODE": "a b", "HF_TOKEN": "hf_0123456789"},
    }
    recipe_file(tmp_path / "a.yaml", name="a", engine=engine, tp=2)
    recipe_file(tmp_path / "b.yaml", name="b", repeats=1)
    assert sweep("a.yaml", "b.yaml") == 0
    output, _ = capsys.readouterr()
    lines = output.splitlines()
    assert lines[:3] == [
        "round 1 of 2: a, concurrency 1, 2",
        "round 1 of 1: b, concurrency 1, 2",
        "round 2 of 2: a, concurrency 1, 2",
    ]
    command = "vllm serve small --port PORT --tensor-parallel-size 2"
    assert f"  env 'HF_TOKEN=(redacted)' 'VLLM_MODE=a b' {command}" in lines
    assert not (tmp_path / "results").exists()
    assert sweep("a.yaml", "--json") == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["command"] == command.split()
    assert first["concurrencies"] == [1, 2]


def test_with_a_target_it_says_what_is_known_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe_file(tmp_path / "r.yaml", concurrency=[1, 64], repeats=3)
    assert sweep("r.yaml", "--target-interactivity", "40,50") == 0
    output, _ = capsys.readouterr()
    assert output.splitlines()[0] == (
        "small: targets 40 tok/s/user, 50 tok/s/user to 2 %, concurrency 1 to 64, at most 6 points "
        "in 3 rounds, 0 measured already; round 1 goes on at concurrency 8"
    )
    assert "--port PORT" in output
    assert not (tmp_path / "results").exists()
