import json
import subprocess
import sys
from pathlib import Path

import pytest

from upcurve.cli.demo import _compare, _show, _targets
from upcurve.errors import InputError
from upcurve.frontier.point import Point
from upcurve.frontier.targets import round_targets
from upcurve.records.comparable import comparable_series
from upcurve.records.rows import import_rows
from upcurve.records.store import Store
from upcurve.sweep.demo import question_recipe


def upcurve(*words, timeout=500):
    return subprocess.run(
        [sys.executable, "-m", "upcurve", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_the_demo_serves_sweeps_compares_and_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("UPCURVE_API_KEY", "secret")  # every engine asks for it
    store = tmp_path / "results"
    given = ("--json", "--concurrency", "1,2", "--repeats", "1", "--store", str(store))
    done = upcurve("demo", *given)
    assert done.returncode == 0, done.stderr
    for step in range(1, 6):
        assert f"[{step}/5]" in done.stderr
    for step in (
        "The chairs cost 8 * 2 = 16 dollars.",
        "So the bill is 16 - 9 = 7 dollars.",
        "Alex has 69 - 7 = 62 dollars left.",
        "#### 62",
    ):
        assert f"    {step}\n" in done.stderr
    for text in ("baseline", "optimised", "19.0x", "unreachable", "tokens/s per CPU"):
        assert text in done.stderr
    told = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert told["answer"].endswith("#### 62")
    assert told["headline"] in done.stderr
    assert told["measured"]["baseline"] == "baseline"
    assert [each["name"] for each in told["measured"]["series"]] == ["baseline", "optimised"]
    may = told["published"]["series"][2]
    ratios = {at["interactivity"]: at["ratio"] for at in may["at"]}
    assert ratios[40] == pytest.approx(19.0, abs=0.1)
    assert Path(told["store"]) == store
    assert Path(told["report"]) == store / "reports" / "demo.html"
    page = (store / "reports" / "demo.html").read_text()
    assert "may gives 3.86x to 19.0x the throughput of feb at 20 to 40 tokens/s per user" in page
    with Store.open(store, create=False) as opened:
        summaries = {each.name: each for each in opened.series()}
        assert {name: each.points for name, each in summaries.items()} == {
            "baseline": 2,
            "optimised": 2,
            "feb": 5,
            "apr": 8,
            "may": 8,
        }
        off, on = (summaries[name].fingerprints for name in ("baseline", "optimised"))
        assert len(off) == len(on) == 1
        assert off != on
    at = ("--at", "50", "--json", "--store", str(store))
    again = upcurve("compare", "baseline", "optimised", *at)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("stderr", [False, True])
def test_people_read_on_stdout_unless_a_machine_does(tmp_path, capsys, stderr):
    with Store.open(str(tmp_path)) as store:
        import_rows(store, "published:mi355x-qwen35")
        public = comparable_series(store, ["feb", "may"])
    comparison = _compare(public, baseline="feb", targets=[40.0])
    _show(comparison, public, stderr=stderr)
    out, err = capsys.readouterr()
    told, silent = (err, out) if stderr else (out, err)
    assert silent == ""
    for text in ("19.0x", "may against feb", "Qwen3.5-397B-A17B"):
        assert text in told


def test_a_store_that_is_no_folder_is_refused_before_any_work(tmp_path):
    done = upcurve("demo", "--store", "postgresql://localhost/none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("upcurve: error: store: ")


def test_without_the_trained_model_one_line_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"no trained model in .*; clone the repository"):
        question_recipe(tmp_path)


def test_curves_that_share_no_interactivity_are_still_compared():
    points = {
        "baseline": [Point(10.2, 50, 1, 1, 1), Point(8.1, 70, 1, 1, 2)],
        "optimised": [Point(20.4, 90, 1, 1, 2), Point(30.3, 80, 1, 1, 1)],
    }
    assert _targets(points) == [8.0, 10.0, 20.0, 30.0]
    points["optimised"].append(Point(9.0, 200, 1, 1, 4))
    assert _targets(points) == round_targets(points)
