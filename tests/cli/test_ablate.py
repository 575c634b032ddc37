"""`upcurve ablate` over HTTP: a server of known timing whose speed its flags set."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.accuracy.examples import answers, items, write_answers, write_items
from tests.sweep.examples import recipe_file
from upcurve.cli import run
from upcurve.dashboard.answers.attribution import attribution
from upcurve.dashboard.contract.questions import AttributionQuestion
from upcurve.dashboard.reader import Reader
from upcurve.records.store import Store

SERVE = "upcurve known-server --port {port} --host {host} --first-ms 2"
# So slow that a busy machine adds little: 27 tok/s/user with about three streams.
SLOW = ["--interval-ms", "24", "--per-stream-ms", "6"]
SWITCH = "flag:--per-stream-ms=3"
LABELS = ["all off", "all on"]


def write(path: Path, *flags: str, **changes: object) -> Path:
    values = {
        "name": "known",
        "model": "known",
        "hardware": "CPU",
        "engine": {
            "name": "known-server",
            "command": [*SERVE.split(), *SLOW, *flags],
            "health": {"timeout_s": 300},
        },
        "workload": {"isl": 8, "osl": 8, "requests_per_stream": 3, "warmup": 1},
        "concurrency": [2, 6],
    }
    path.write_text(yaml.safe_dump(values | changes))
    return path


def ablate(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        run(["ablate", *map(str, arguments)])
    return ended.value.code


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a recipe and a store of three whole rounds of one switch."""
    folder = tmp_path_factory.mktemp("ablate")
    path = write(folder / "known.yaml")
    code = ablate(
        *[path, "--switch", SWITCH, "--at", "27", "--max-rounds", "3", "--precision", "1e-9"],
        *["--store", folder / "store", "--json"],
    )
    assert code == 0
    return folder


def again(folder: Path, *arguments: object) -> int | str | None:
    """Say it again from what the store holds; nothing is launched."""
    return ablate(
        *[folder / "known.yaml", "--switch", SWITCH, "--max-rounds", "3", "--resume"],
        *["--store", folder / "store", *arguments],
    )


def test_the_planted_effect_comes_out_and_nothing_is_measured_twice(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Precise enough after three rounds: it ends there, whatever --max-rounds allows.
    more = ["--json", "--price", "CPU=1", "--precision", "3", "--max-rounds", "5"]
    assert again(measured, "--at", "27,28", *more) == 0
    output, errors = capsys.readouterr()
    assert "launching" not in errors
    data = json.loads(output)
    assert (data["design"], data["rounds"], data["switches"]) == ("full", 3, [SWITCH])
    assert [each["interactivity"] for each in data["targets"]] == [27, 28]
    for target in data["targets"]:
        (share,) = target["shares"]
        # c = 1 + (1000 / x - 24) / per stream: half the slope, twice the streams beside one.
        beside = 1000 / target["interactivity"] - 24
        truth = math.log((1 + beside / 3) / (1 + beside / 6))
        assert share["log_ratio"]["mean"] == pytest.approx(truth, abs=0.15)
        assert share["log_ratio"]["mean"] == pytest.approx(target["move"]["log_ratio"]["mean"])
        low, high = share["log_ratio"]["interval"]
        assert low < share["log_ratio"]["mean"] < high
        assert share["usd"]["mean"] == pytest.approx(target["move"]["usd"]["mean"])
        assert target["rounds"] == [0, 1, 2]


def test_each_configuration_is_a_series_and_each_launch_says_its_place(measured: Path) -> None:
    with Store.open(measured / "store", create=False) as store:
        names = [each.name for each in store.series()]
        rows = list(store.rows())
    assert sorted(names) == [f"known: {label}" for label in LABELS]
    assert len(rows) == 12
    launches = {row["run"]: row["recipe"]["ablation"] for row in rows}
    assert {(each["round"], each["turn"]) for each in launches.values()} == {
        (r, t) for r in range(3) for t in range(2)
    }
    assert {each["seed"] for each in launches.values()} == {0}
    assert {(tuple(each["on"])) for each in launches.values()} == {(), (SWITCH,)}


def test_every_format_says_the_same(
    measured: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chart = tmp_path / "w.svg"
    assert again(measured, "--at", "27", "--chart", chart) == 0
    text = capsys.readouterr().out
    assert again(measured, "--at", "27", "--format", "markdown") == 0
    page = capsys.readouterr().out
    assert again(measured, "--at", "27", "--format", "csv") == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    factor = f"{math.exp(float(row['log_ratio'])):.3f}x"
    for shown in (text, page, chart.read_text()):
        assert SWITCH in shown
        assert factor in shown
    assert "No cost, because CPU has no price; give --price CPU=USD." in text
    assert "launches in random order, seed 0; design full" in page


def test_a_target_that_a_configuration_does_not_reach_has_no_shares_and_a_hint(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert again(measured, "--at", "5000") == 1
    output = capsys.readouterr().out
    assert "At 5000 tok/s/user: no shares" in output
    assert "round 1 is left out: all off: its frontier ends at" in output
    assert "Every configuration reaches" in output


def test_an_engine_that_does_not_start_costs_the_shares_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "known.yaml", workload={"isl": 8, "osl": 8, "requests_per_stream": 1})
    store = tmp_path / "store"
    code = ablate(
        *[path, "--switch", "flag:--no-such-flag", "--at", "27", "--rounds", "1"],
        *["--store", store],
    )
    assert code == 1
    output, errors = capsys.readouterr()
    assert "the engine failed" in errors
    assert "round 1 is left out: all on: not measured" in output
    with Store.open(store, create=False) as opened:
        assert len(opened.points("known: all off")) == 2


def test_a_killed_ablation_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, store = write(tmp_path / "known.yaml"), tmp_path / "store"
    arguments = [path, "--switch", SWITCH, "--at", "27", "--rounds", "1", "--store", store]
    arguments += ["--max-rounds", "1"]
    command = [sys.executable, "-m", "upcurve", "ablate", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "concurrency 2:" in line:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    with Store.open(store, create=False) as opened:
        before = len(list(opened.rows()))
    assert 1 <= before < 4
    assert ablate(*arguments, "--resume", "--dry-run") == 0
    assert "(measured already: 2" in capsys.readouterr().out
    assert ablate(*arguments, "--resume", "--json") == 0
    assert json.loads(capsys.readouterr().out)["targets"][0]["shares"]
    with Store.open(store, create=False) as opened:
        assert len(list(opened.rows())) == 4


def test_dry_run_prints_every_launch_and_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "known.yaml")
    assert (
        ablate(
            path,
            "--switch",
            f"a,{SWITCH}",
            "--at",
            "40",
            "--dry-run",
            "--set",
            "tp=2",
            "--set",
            "engine.command=engine --port {port}",
            "--set",
            f"engine.env.PATH={tmp_path}",
        )
        == 2
    )
    assert "there is no program 'engine'" in capsys.readouterr().err
    switches = ["--switch", "env:OMP_NUM_THREADS=7", "--switch", SWITCH]
    assert ablate(path, *switches, "--at", "40", "--dry-run", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3 * 4
    for index in range(3):
        assert len({x["configuration"] for x in lines if x["round"] == index}) == 4
    on = next(x for x in lines if x["configuration"] == "all on")
    assert on["command"][-1] == "--per-stream-ms=3"
    assert on["env"] == {"OMP_NUM_THREADS": "7"}
    assert (
        ablate(path, *switches, "--at", "40", "--dry-run", "--design", "one", "--rounds", "1") == 0
    )
    output = capsys.readouterr().out
    assert "round 1 of at least 1: all off, concurrency 2, 6" in output
    assert "known: all on: fingerprint " in output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--switch", "a"], "Missing option '--at'"),
        (["--switch", "env:A", "--at", "40"], "--switch: 'env:A' is no switch; give NAME"),
        (
            [
                "--switch",
                "no_such_switch",
                "--at",
                "40",
                "--set",
                "engine.command=upcurve serve m --port {port}",
            ],
            "--switch no_such_switch: the engine has no such switch; it has grouped_experts",
        ),
        (["--switch", "set:tp=1", "--at", "40"], "--switch set:tp=1: it changes nothing"),
        (["--switch", "a", "--at", "40", "--chart", "a.pdf"], "--chart: a.pdf is no SVG or PNG"),
        (
            ["--switch", "set:tp=2", "--at", "40", "--price", "H200=2"],
            "price: the recipe does not run on",
        ),
        (["--switch", "a", "--at", "40", "--json", "--format", "csv"], "--json and --format csv"),
        (["--switch", "a", "--at", "40", "--rounds", "12"], "max-rounds: 10 are fewer than"),
        (["--switch", ",".join("abcdefghijk"), "--at", "40", "--design", "full"], "--design: 11"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    path = write(tmp_path / "known.yaml")
    assert ablate(path, *arguments, "--store", tmp_path / "store") == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.splitlines() == [errors.strip()]
    assert errors.startswith(f"upcurve: error: {line}")
    assert not (tmp_path / "store").exists()


def test_the_dashboard_says_the_same_from_the_store(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert again(measured, "--at", "27,28", "--json", "--price", "CPU=1") == 0
    told = json.loads(capsys.readouterr().out)
    with Store.open(measured / "store") as store:
        question = AttributionQuestion(at=["27,28"], price=["CPU=1"])
        (item,) = attribution(Reader(store), question).items
    answer = item.model_dump(mode="json")["ablation"]
    by_series = {each["series"]: each for each in answer.pop("configurations")}
    assert by_series == {each["series"]: each for each in told.pop("configurations")}
    assert answer == told


def test_what_is_doubtful_about_the_points_is_said_in_every_format(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = "runs of 6 requests"  # of concurrency 2, three a stream
    for form in ("table", "markdown", "csv", "json"):
        # The same target twice is two answers, not a mistake.
        assert again(measured, "--at", "27,27", "--format", form) == 0
        output, _ = capsys.readouterr()
        assert few in output, form
        assert "no accuracy was measured at the points around it" in output, form
        whole = f"{few} at the points around it; a median wants 64"
        assert (whole in output) == (form in ("csv", "json")), form
        if form in ("table", "markdown"):
            assert output.count("(all points)") == 2
    (flag, *_) = json.loads(output)["targets"][1]["flags"]
    assert flag.keys() == {"configuration", "code", "text"}
    assert flag["configuration"] in LABELS


def test_each_configuration_is_gated_once_and_a_failed_gate_is_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = items(20)
    path = recipe_file(
        tmp_path / "small.yaml",
        *["--answers", write_answers(tmp_path / "a.json", answers(asked, {1, 2, 3}))],
        *["--token-ms", 20, "--batch-ms", 5],
        accuracy={
            "task": "gsm8k",
            "data": str(write_items(tmp_path / "items.jsonl", asked)),
            "shots": 0,
            "minimum": 0.9,
            "where": [2],
        },
    )
    store = tmp_path / "store"
    words = ["--switch", "flag:--batch-ms=3", "--at", "36", "--rounds", "2", "--max-rounds", "2"]
    assert ablate(path, *words, "--store", store, "--json") == 1
    errors = capsys.readouterr().err
    assert "upcurve: error: the accuracy gate failed at " in errors
    with Store.open(store, create=False) as opened:
        judged = [
            (row["series"], row["concurrency"], row["repeat"], row["accuracy"]["score"])
            for row in opened.rows()
            if row["accuracy"]
        ]
    assert sorted(judged) == [(f"small: {label}", 2, 0, 0.85) for label in LABELS]
