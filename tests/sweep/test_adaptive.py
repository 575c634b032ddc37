"""A sweep that chooses its points on a real engine process whose step time grows with its batch."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.processes import gone, until
from tests.sweep.examples import recipe, recipe_file
from upcurve.cli import run
from upcurve.errors import InputError
from upcurve.records.published import prices
from upcurve.sweep.adaptive import goals_of

# A token takes 10 ms + 10 ms x in flight: 25 tok/s/user at concurrency 3, 20 at 4.
SLOPE = ("--token-ms", 10, "--batch-ms", 10)
TARGET = 22.0
LOAD = {"isl": 8, "osl": 6, "requests_per_stream": 2, "warmup": 1}


def sweep(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        run(["sweep", *map(str, arguments)])
    return ended.value.code


def lines(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return found[:-1], found[-1]


def test_it_finds_the_neighbours_repeats_them_and_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_file(tmp_path / "r.yaml", *SLOPE, workload=LOAD, concurrency=[1, 8], repeats=2)
    target = [path, "--target-interactivity", TARGET, "--store", tmp_path / "store", "--json"]
    assert sweep(*target, "--max-points", 1) == 0
    first, outcome = lines(capsys)
    assert len(first) == 1
    assert (outcome["points"], outcome["precise"]) == (1, False)
    assert outcome["why"].startswith("budget of 1 point spent")

    assert sweep(*target, "--max-points", 12, "--resume") == 0
    later, outcome = lines(capsys)
    points = first + later
    measured = [(each["concurrency"], each["repeat"]) for each in points]
    assert len(set(measured)) == len(measured) == outcome["points"] <= 12
    chosen = {at for at, repeat in measured if repeat == 0}
    assert {at for at, repeat in measured if repeat == 1} <= chosen
    assert any(repeat == 1 for _, repeat in measured)
    fast = [each["tput_per_gpu"] for each in points if each["interactivity"] > TARGET]
    slow = [each["tput_per_gpu"] for each in points if each["interactivity"] < TARGET]
    assert min(fast) <= outcome["tput_per_gpu"] <= max(slow)
    # The same figures by hand: (8 + 6) tokens of c streams, each request 6 steps of 1 / 22 s. What
    # a busy machine adds makes it slower, never faster.
    by_hand = 14 * 3.545 / (6 / TARGET)
    assert 0.4 * by_hand < outcome["tput_per_gpu"] < 1.25 * by_hand
    assert outcome["target"]["interactivity"] == TARGET
    assert len({each["run"] for each in points}) == 3  # two launches of round 0, one of round 1

    assert sweep(*target, "--max-points", 12, "--resume") == 0
    again, same = lines(capsys)
    assert again == []
    assert same == outcome


def test_a_target_that_is_too_fast_is_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_file(tmp_path / "r.yaml", *SLOPE, workload=LOAD, concurrency=[2], repeats=1)
    arguments = ["--target-interactivity", 500, "--max-points", 5, "--store", tmp_path / "store"]
    assert sweep(path, *arguments) == 0
    output, errors = capsys.readouterr()
    assert "small at 500 tok/s/user: unreachable: the best interactivity is " in output
    assert output.rstrip().endswith("at concurrency 1")
    assert "at most 5 points, chosen as they are measured" in errors


def test_an_engine_that_dies_at_a_chosen_point_ends_its_launch_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Concurrency 2 comes first (the root of 4): a probe, and six requests.
    path = recipe_file(
        tmp_path / "r.yaml", *SLOPE, "--die-after", 5, workload=LOAD, concurrency=[1, 4], repeats=2
    )
    arguments = ["--target-interactivity", 500, "--store", tmp_path / "store", "--json"]
    assert sweep(path, *arguments) == 1
    found, outcome = lines(capsys)
    died = [each for each in found if "error" in each]
    assert died[0]["concurrency"] == 2
    assert all("it ended with status 7" in each["error"] for each in died)
    assert outcome["status"] in ("unreachable", "open", "blocked")


def test_a_killed_sweep_goes_on_with_what_it_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note, store = tmp_path / "note", tmp_path / "store"
    # Concurrency 2 comes first (the root of 4): a probe, 2 and 4 requests; the next point hangs.
    changes: dict[str, Any] = {"workload": LOAD, "concurrency": [4], "repeats": 1}
    path = recipe_file(
        tmp_path / "r.yaml",
        *(*SLOPE, "--note", note, "--hang-at", 8),
        **changes,
    )
    options = [
        path,
        "--target-interactivity",
        TARGET,
        "--max-points",
        5,
        "--store",
        store,
        "--json",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "upcurve", "sweep", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert until(lambda: note.exists() and len(note.read_text().splitlines()) >= 8)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    engine = int(note.read_text().split()[0])
    assert until(lambda: gone([engine]))
    assert [json.loads(line)["concurrency"] for line in output.splitlines()] == [2]
    capsys.readouterr()
    assert sweep(*options, "--resume", "--dry-run") == 0
    (planned,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert planned["skipped"] == [[2, 0]]
    assert planned["next"]["round"] == 0
    assert planned["next"]["concurrency"] > 2


def test_a_cost_is_priced_as_a_comparison_prices_it() -> None:
    asked: dict[str, Any] = {"precision": 0.02, "max_points": None, "highest": None}
    asked |= {"prices": prices(), "tier": "hyperscaler"}
    of = [recipe(hardware="MI355X", concurrency=[4, 32], repeats=3)]
    goals, said = goals_of(of, [], [0.1], on=date(2026, 6, 1), given={}, **asked)
    price = prices().lookup("MI355X", "hyperscaler", date(2026, 6, 1))
    (target,) = goals[0].targets
    assert target.value == pytest.approx(price.usd_per_gpu_hour / 0.1 / 0.0036)
    assert (goals[0].max_points, goals[0].highest, goals[0].rounds) == (6, 32, 3)
    assert said == [price.describe()]
    goals, said = goals_of(of, [], [0.1], on=date(2026, 6, 1), given={"MI355X": 3.6}, **asked)
    assert goals[0].targets[0].value == pytest.approx(10_000)
    with pytest.raises(InputError, match="no price for 'CPU'"):
        goals_of([recipe()], [], [0.1], on=date(2026, 6, 1), given={}, **asked)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--precision", "0.01"], "--precision is of a target: give --target-interactivity N"),
        (["--price", "CPU=1"], "--price is of a target"),
        (["--target-interactivity", "0"], "Invalid value for '--target-interactivity'"),
        (["--target-cost", "0.1"], "hardware: no price for 'CPU'"),
        (["--target-interactivity", "4", "--price", "CPU=1"], "price: no cost is asked for"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    path = recipe_file(tmp_path / "r.yaml")
    assert sweep(path, "--store", tmp_path / "store", *arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"upcurve: error: {line}")
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "store").exists()
