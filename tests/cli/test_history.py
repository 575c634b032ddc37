from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from upcurve.cli import run
from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.store import Store

DAY = datetime(2026, 3, 1, tzinfo=UTC)
WOBBLE = (0.002, -0.003, 0.001, 0.004, -0.002, 0.0, -0.004, 0.003)
SCALES = [scale * (1 + wobble) for scale in (1.0, 0.95) for wobble in WOBBLE]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return a store with sixteen nightly builds; the ninth is 5 % slower, with another driver."""
    location = tmp_path_factory.mktemp("history") / "store"
    with Store.open(location) as opened:
        for number, scale in enumerate(SCALES):
            when = DAY + timedelta(days=number)
            record = RunRecord(
                series=f"nightly-{when.date()}",
                source="sweep",
                fingerprint=f"{number}",
                model="M",
                hardware="MI355X",
                engine="sglang",
                engine_version=f"0.5.{number}",
                started_at=when,
                software={"drivers": ["AMD 1" if number < 8 else "AMD 2"]},
                change=f"https://example.org/pull/{number}",
            )
            run_id = opened.begin_run(record)
            for concurrency, speed, tput in ((4, 60.0, 1000.0), (32, 20.0, 4000.0)):
                opened.add_point(
                    run_id,
                    PointRecord(
                        isl=8192,
                        osl=1024,
                        tp=2,
                        gpus=2,
                        concurrency=concurrency,
                        measured_at=when,
                        tput_per_gpu=tput * scale,
                        interactivity=speed,
                        ttft_ms=100 / scale,
                    ),
                )
            opened.end_run(run_id, "complete")
    return str(location)


@pytest.fixture
def history(store, capsys):
    def call(*arguments, location=store):
        with pytest.raises(SystemExit) as exit_:
            run(["history", *arguments, "--store", location])
        out, err = capsys.readouterr()
        return exit_.value.code, out, err

    return call


def test_a_regression_is_told_with_size_interval_and_what_came_with_it(history):
    code, out, _ = history("--at", "40")
    assert code == 0
    assert "sglang M on MI355X" not in out  # the stem has a name: nightly
    assert "nightly M on MI355X, 8192 in / 1024 out; tput at 40 tok/s/user" in out
    assert "regression: -5.0% (95 % interval" in out
    assert "From 0.5.7 to 0.5.8:" in out
    assert "  https://example.org/pull/8\n" in out
    assert "  driver: AMD 1 -> AMD 2\n" in out
    assert "pull/5" not in out


def test_json_for_machines(history):
    code, out, _ = history("--at", "40", "--json")
    assert code == 0
    (found,) = json.loads(out)["histories"]
    assert (found["state"], len(found["builds"])) == ("regression", 16)
    (change,) = found["change_points"]
    assert (change["after_build"], change["build"]) == ("0.5.7", "0.5.8")
    assert change["interval"][0] < 0.95 < change["interval"][1]
    assert change["differences"] == ["driver: AMD 1 -> AMD 2", "engine version: 0.5.7 -> 0.5.8"]
    assert found["builds"][0]["value"] == pytest.approx(2500 * SCALES[0])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--at", "40"], 1),
        (["--at", "40", "--metric", "usd_per_million"], 1),
        (["--concurrency", "4", "--metric", "ttft_ms"], 1),
        (["--concurrency", "4", "--metric", "interactivity"], 0),
        (["--at", "40", "--min-change", "0.1"], 0),
        (["--at", "40", "--metric", "joules_per_token"], 0),
        (["published:mi355x-qwen35", "--at", "20,60"], 0),
    ],
)
def test_fail_on_regression_exits_with_1_where_the_newest_level_is_worse(history, arguments, code):
    assert history(*arguments, "--fail-on-regression")[0] == code
    assert history(*arguments)[0] == 0


def test_one_price_holds_for_all_builds_and_is_said(history):
    _, out, _ = history("--at", "40", "--metric", "usd_per_million")
    assert "Price of all builds: MI355X $1.48 per GPU-hour (hyperscaler, valid from" in out
    _, out, _ = history("--at", "40", "--metric", "usd_per_million", "--price", "3", "--json")
    (found,) = json.loads(out)["histories"]
    assert found["builds"][0]["value"] == pytest.approx(3 / (2500 * SCALES[0] * 0.0036))


def test_few_builds_are_no_verdict_and_their_changes_are_told(history):
    code, out, _ = history("published:mi355x-qwen35", "--at", "60")
    assert code == 0
    assert "unreachable" in out
    assert "insufficient data: 2 builds with a value; change points need 6" in out
    assert "https://github.com/sgl-project/sglang/pull/20736 (merged 2026-04-15)" in out


def test_a_parallelism_is_a_table_of_its_own_at_a_concurrency(history):
    _, out, _ = history("published:mi355x-qwen35", "--concurrency", "32", "--json")
    places = [each["at"] for each in json.loads(out)["histories"]]
    assert places == ["concurrency 32, TP2", "concurrency 32, TP4", "concurrency 32, TP8"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of --at N and --concurrency N"),
        (["--at", "40", "--concurrency", "4"], "give one of --at N and --concurrency N"),
        (["--at", "40", "--metric", "ttft_ms"], "give --concurrency, not --at"),
        (["--at", "fast"], "'--at': 'fast' is not a positive number"),
        (["--concurrency", "5"], "concurrency: none measured 5; choose another"),
        (["june", "--at", "40"], "series: 'june' fits none in the store; it holds nightly"),
        (["--at", "40", "--isl", "7"], "series: no measured points"),
        (
            ["--at", "40", "--metric", "usd_per_million", "--tier", "spot"],
            "tier: no 'spot' price for MI355X",
        ),
        (["--at", "40", "--price", "-1"], "price: -1.0 is no price"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(history, arguments, message):
    code, out, err = history(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
