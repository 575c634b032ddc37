"""`upcurve limit`: the line, and how close stored series come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from upcurve.cli import run
from upcurve.records.rows import import_rows
from upcurve.records.store import Store

OPTIONS = ["--model", "Qwen3.5-397B-A17B", "--hardware", "MI355X", "--isl", "8192", "--osl", "1024"]


def limit(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run(["limit", *options])
    return (ended.value.code, *capsys.readouterr())


def test_the_line_and_its_assumptions(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = limit(capsys, *OPTIONS, "--gpus", "4", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert {each["gpus"] for each in told["line"]} == {4}
    speeds = [each["interactivity"] for each in told["line"]]
    assert speeds == sorted(speeds)
    for each in told["line"]:
        assert each["interactivity"] == pytest.approx(1000 / each["step_ms"])
    code, out, _ = limit(capsys, *OPTIONS)
    assert code == 0
    assert "8 TB/s" in out
    assert "bandwidth" in out


def test_stored_series_are_told_as_shares_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(tmp_path) as store:
        import_rows(store, "published:mi355x-qwen35")
    where = ["--store", str(tmp_path)]
    code, out, _ = limit(capsys, "feb", "may", *OPTIONS, "--at", "40,60", *where, "--json")
    told = json.loads(out)["at"]
    assert code == 0
    assert told[0]["series"]["may"] == pytest.approx(3660, abs=1)
    assert told[0]["tput_per_gpu"] > 10 * told[0]["series"]["may"]
    assert told[1]["series"]["feb"] is None
    code, out, _ = limit(capsys, "may", *OPTIONS, *where)
    assert "3,660 (" in out
    code, out, _ = limit(capsys, "feb", "may", *OPTIONS, "--at", "1,60", *where)
    assert out.count("below range") == 2
    assert out.count("unreachable") == 1


@pytest.mark.parametrize(
    ("place", "other", "words"),
    [
        (3, "H200", "series 'may': it was measured on MI355X; give another --hardware"),
        (1, "Qwen3.5-35B-A3B", "series 'may': it is Qwen3.5-397B-A17B; give another --model"),
    ],
)
def test_a_series_of_something_else_has_no_share(
    place: int, other: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(tmp_path) as store:
        import_rows(store, "published:mi355x-qwen35")
    options = [*OPTIONS[:place], other, *OPTIONS[place + 1 :], "--store", str(tmp_path)]
    code, out, err = limit(capsys, "may", *options)
    assert (code, out) == (2, "")
    assert words in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "gpt", *OPTIONS[2:]], "no shape of 'gpt' is known"),
        ([*OPTIONS[:3], "X1", *OPTIONS[4:]], "no specification of 'X1'"),
        ([*OPTIONS, "--gpus", "1"], "on 1 GPUs; MI355X has 288 GB; give more GPUs"),
        ([*OPTIONS[:5], "9" * 20, *OPTIONS[6:]], f"does not fit with a request of {'9' * 20} in"),
    ],
)
def test_what_is_not_known_is_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = limit(capsys, *options)
    assert (code, out) == (2, "")
    assert words in err
