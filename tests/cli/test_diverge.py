"""`upcurve diverge`: the table, the JSON, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import upcurve.cli
from tests.cli.test_serve import CONFIG
from upcurve.cli.diverge import command
from upcurve.engine.model.checkpoint import write_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "mini"
    config = CONFIG | {"max_position_embeddings": 100}
    write_checkpoint(folder, config, seed=0)
    return folder


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(
        command, [str(each) for each in arguments], standalone_mode=False, catch_exceptions=False
    )


def test_builds_within_the_limits_end_with_0_and_a_table(model: Path) -> None:
    result = run(model, "--limit", 2, "--switch", "fused_norm,cuda_graphs")
    assert result.return_value == 0
    rows = [line.split("│")[1].strip() for line in result.stdout.splitlines() if "│" in line]
    assert rows == ["plain torch", "all on", "fused_norm off", "fused_norm alone", "all off"]
    assert "48 tokens of 2 passages (tokens drawn by a seed)" in result.stdout
    assert "Without effect here, left out: cuda_graphs." in result.stdout
    assert "beyond the limits" not in result.stdout


def test_json_has_every_number(model: Path) -> None:
    result = run(model, "--limit", 2, "--switch", "none", "--dtype", "bf16", "--json")
    report = json.loads(result.stdout)
    assert report["passed"] == (result.return_value == 0)
    assert (report["dtype"], report["quantization"]) == ("bf16", "none")
    assert [each["name"] for each in report["builds"]] == ["all on", "all off"]
    plain = report["plain_torch"]
    wanted = 1.5 * plain["kl_mean"] + 3 * plain["kl_error"]
    assert report["limits"]["kl"] == pytest.approx(wanted, abs=1e-7)
    assert 0 < report["builds"][0]["kl_mean"] < report["builds"][0]["kl_max"] < 1


@pytest.mark.parametrize(
    "limit", [("--max-kl", "1e-5"), ("--min-agreement", "1", "--max-kl", "1e-9")]
)
def test_a_build_beyond_a_limit_that_is_given_ends_with_1(
    model: Path, limit: tuple[str, ...]
) -> None:
    result = run(model, "--limit", 2, "--switch", "", "--dtype", "bf16", *limit)
    assert result.return_value == 1
    assert result.stdout.count("beyond the limits") == 2


def test_a_file_of_text_is_read(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text('{"question": "What is 1 + 1?", "answer": "It is 2.\\n#### 2"}\n')
    result = run(model, "--text", file, "--switch", "", "--json")
    report = json.loads(result.stdout)
    assert (report["text"], report["passages"]) == ("text.jsonl", 1)
    assert result.return_value == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--switch", "fast"], "switch: 'fast' is not a switch"),
        (["--device", "cuda"], "device: torch sees no GPU"),
        (["--text", "missing.jsonl"], "--text"),
        (["--max-kl", "-1"], "--max-kl"),
    ],
)
def test_bad_input_is_one_line_and_2(
    model: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        upcurve.cli.run(["diverge", str(model), *arguments])
    assert end.value.code == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert line in error
