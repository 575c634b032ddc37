from __future__ import annotations

import json
from pathlib import Path

import pytest

from upcurve.cli import run
from upcurve.records.store import Store

GOOD = (
    "series,measured_on,hardware,model,isl,osl,tp,gpus,concurrency,tput_per_gpu,interactivity\n"
    "mine,2026-11-23,H200,Q,64,16,1,1,4,100.5,50.25\n"
)


def upcurve(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    out, err = capfd.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UPCURVE_STORE", str(tmp_path / "results"))
    return tmp_path / "results"


def test_published_rows_twice(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = upcurve(capfd, "import", "published:mi355x-qwen35")
    assert code == 0
    assert out.splitlines()[:3] == [
        f"{name}: {count} rows added to {store}"
        for name, count in (("feb", 5), ("apr", 8), ("may", 8))
    ]
    assert err == "upcurve: warning: line 9: interactivity 38.5 is not 1000 / tpot_ms = 37.72\n"
    code, out, _ = upcurve(capfd, "import", "published:mi355x-qwen35")
    assert code == 0
    assert out.startswith(f"feb: 5 rows are in {store} already, nothing added\n")


def test_json_is_all_there_is_on_stdout(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(GOOD)
    code, out, err = upcurve(capfd, "import", str(file), "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "file": str(file),
        "added": {"mine": 1},
        "already_there": {},
        "unknown_columns": [],
        "warnings": [],
    }


def test_one_line_and_exit_code_2(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(GOOD + GOOD.splitlines()[1].replace(",64,", ",x,").replace(",50.25", ","))
    code, out, err = upcurve(capfd, "import", str(file))
    assert (code, out) == (2, "")
    assert err == (
        f"upcurve: error: {file}, line 3, column 'isl': 'x' is not a whole number; write e.g. 8"
        " (and 1 more problem; --json lists all)\n"
    )
    code, out, err = upcurve(capfd, "import", str(file), "--json")
    assert (code, len(err.splitlines())) == (2, 1)
    assert json.loads(out) == {
        "file": str(file),
        "place": "line",
        "problems": [
            {
                "place": 3,
                "column": "isl",
                "problem": "'x' is not a whole number",
                "mend": "write e.g. 8",
            },
            {
                "place": 3,
                "column": "interactivity",
                "problem": "the cell is empty",
                "mend": "fill it or leave out the row",
            },
        ],
    }
    with Store.open(store) as opened:
        assert opened.series() == []


def test_a_column_may_be_given(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(GOOD.replace("mine,", "").replace("series,", ""))
    code, _, err = upcurve(capfd, "import", str(file))
    assert code == 2
    assert "column 'series': the column is missing; add it, or give --set series=VALUE" in err
    code, out, _ = upcurve(capfd, "import", str(file), "--set", "series=theirs")
    assert (code, out) == (0, f"theirs: 1 rows added to {store}\n")


@pytest.mark.parametrize("location", ["published:", "published:none", "no-such-file.csv"])
def test_nothing_to_import(location: str, store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = upcurve(capfd, "import", location)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert not store.exists()  # a wrong name leaves nothing behind


def test_help_has_an_example(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = upcurve(capfd, "import", "--help")
    assert code == 0
    assert "upcurve import published:mi355x-qwen35\n" in out
