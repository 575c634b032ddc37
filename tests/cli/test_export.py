from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from upcurve.cli import run
from upcurve.records.rows import import_rows
from upcurve.records.store import Store


def upcurve(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    out, err = capfd.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    location = tmp_path_factory.mktemp("export") / "results"
    with Store.open(location) as opened:
        import_rows(opened, "published:mi355x-qwen35")
    return str(location)


def test_csv_on_stdout(store: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = upcurve(capfd, "export", "--store", store)
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 21
    assert (rows[0]["series"], rows[0]["tput_per_gpu"]) == ("feb", "171.9")


@pytest.mark.parametrize("form", [["--json"], ["--format", "json"]])
def test_json_on_stdout(form: list[str], store: str, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "--store", store, "--series", "feb", "--series", "may", *form]
    code, out, _ = upcurve(capfd, *arguments)
    assert code == 0
    assert {row["series"] for row in json.loads(out)} == {"feb", "may"}


def test_a_file_that_an_import_reads(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.csv"
    code, out, err = upcurve(capfd, "export", "--store", store, "--output", str(file))
    assert (code, out, err) == (0, "", f"21 rows written to {file}\n")
    code, out, _ = upcurve(capfd, "import", str(file), "--store", str(tmp_path / "other"))
    assert code == 0
    assert "may: 8 rows added" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--series", "june"], "series 'june': not in the store"),
        (["--output", "/"], "output: / is a folder"),
        (["--store", "/nowhere/at/all"], "store: there is none in /nowhere/at/all"),
        (["--format", "xml"], "'xml' is not one of"),
    ],
)
def test_one_line_and_exit_code_2(
    arguments: list[str], message: str, store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = upcurve(capfd, "export", "--store", store, *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    header = (
        "series,measured_on,hardware,model,isl,osl,tp,gpus,tput_per_gpu,interactivity,concurrency"
    )
    lines = [f"s,2026-11-23,H200,Q,64,16,1,1,100.5,50.25,{c}" for c in range(1, 2001)]
    (tmp_path / "rows.csv").write_text("\n".join([header, *lines]))
    with Store.open(tmp_path / "results") as opened:
        import_rows(opened, str(tmp_path / "rows.csv"))
    command = [sys.executable, "-m", "upcurve", "export", "--store", str(tmp_path / "results")]
    reader, writer = os.pipe()
    child = subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert os.read(reader, 6) == b"series"
    os.close(reader)
    assert child.communicate()[1] == ""


def test_help_has_an_example(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = upcurve(capfd, "export", "--help")
    assert code == 0
    assert "upcurve export --series feb --series may --output rows.csv\n" in out
