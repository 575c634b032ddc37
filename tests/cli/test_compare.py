from __future__ import annotations

import csv
import io
import json
import math
from datetime import UTC, datetime

import pytest

from upcurve.cli import run
from upcurve.records import published
from upcurve.records.run import PointRecord, RunRecord
from upcurve.records.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return a store with the published MI355X rows and a series of three rounds on a CPU."""
    location = tmp_path_factory.mktemp("compare") / "store"
    with published.measured_file("mi355x-qwen35").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with Store.open(location) as opened:
        for name in dict.fromkeys(row["series"] for row in rows):
            own = [row for row in rows if row["series"] == name]
            fill(opened, name, own[0]["model"], own[0]["hardware"], own[0]["measured_on"], own)
        rounds = [
            {"concurrency": c, "tput_per_gpu": 10 * c**0.5 * (1 + r / 50), "interactivity": 40 / c}
            | {"isl": 64, "osl": 32, "tp": 1, "gpus": 1, "repeat": r}
            for r in range(3)
            for c in (1, 2, 4, 8)
        ]
        for name in ("baseline", "optimised"):
            fill(opened, name, "small", "CPU", "2026-11-23", rounds)
    return str(location)


def fill(store, name, model, hardware, day, rows):
    measured_at = datetime.fromisoformat(day).replace(tzinfo=UTC)
    record = RunRecord(
        series=name,
        source="import",
        fingerprint=name,
        model=model,
        hardware=hardware,
        started_at=measured_at,
    )
    run_id = store.begin_run(record)
    for row in rows:
        whole = {
            key: int(row.get(key, 0))
            for key in ("isl", "osl", "tp", "gpus", "concurrency", "repeat")
        }
        metrics = {key: float(row[key]) for key in ("tput_per_gpu", "interactivity")}
        store.add_point(run_id, PointRecord(measured_at=measured_at, **whole, **metrics))
    store.end_run(run_id, "complete")


@pytest.fixture
def compare(store, capsys):
    def call(*arguments, location=store):
        with pytest.raises(SystemExit) as stopped:
            run(["compare", "--store", location, *arguments])
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


MONTHS = ("feb", "apr", "may", "--baseline", "feb")


def test_json_on_stdout_is_the_contract_and_nothing_else(compare):
    code, out, err = compare(*MONTHS, "--at", "20,40,50", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["targets"], found["baseline"]) == ([20, 40, 50], "feb")
    feb, apr, may = found["series"]
    assert [series["name"] for series in found["series"]] == ["feb", "apr", "may"]
    assert feb["frontier"][0] == {
        "interactivity": 19.22,
        "tput_per_gpu": 1288.0,
        "tp": 8,
        "ep": 1,
        "dp": 1,
        "gpus": 8,
        "prefill_gpus": None,
        "decode_gpus": None,
        "concurrency": 64,
        "repeats": 1,
        "interactivity_interval": None,
        "tput_per_gpu_interval": None,
        "correlation": None,
    }
    assert feb["at"][0] == {
        "interactivity": 20,
        "tput_per_gpu": pytest.approx(1259.04, abs=0.005),
        "status": "interpolated",
        "segment": "end",
        "interval": None,
        "usd_per_million_tokens": pytest.approx(0.3265, abs=5e-5),
        "ratio": 1.0,
        "ratio_interval": None,
        "round_ratios": None,
        "rule_ratios": None,
        "flags": [
            {
                "code": "too_few_samples",
                "text": "one run only at the points around it: no interval, which takes 3",
            },
            {
                "code": "accuracy_missing",
                "text": "no accuracy was measured at the points around it",
            },
        ],
        "joules_per_token": None,
        "usd_per_million_input": None,
        "usd_per_million_output": None,
    }
    assert round(may["at"][1]["ratio"], 1) == 19.0
    assert (feb["at"][2]["status"], feb["at"][2]["ratio"]) == ("unreachable", None)
    assert may["at"][2]["ratio"] == apr["at"][2]["ratio"] == "inf"
    assert "MI355X $1.48 per GPU-hour (hyperscaler, valid from 2025-08-01)" in err


def test_the_table_shows_figures_statuses_marks_and_the_price_once(compare):
    code, out, err = compare(*MONTHS, "--at", "20,40,50")
    assert (code, err) == (0, "")
    for text in ("1,259*", "4,861", "19.0x", "17.7x to 20.1x", "unreachable", "inf", "$2.14"):
        assert text in out
    price = "cost assumes MI355X $1.48 per GPU-hour (hyperscaler, valid from 2025-08-01)"
    assert f"price assumption: {price} (all series).\n" in out
    assert out.count("$1.48") == 1
    assert "* in the first or last interval" in out
    rows = [line for line in out.splitlines() if "tok/s/GPU" in line]
    assert len(rows) == 3
    assert len({len(line) for line in out.splitlines() if line.startswith(("│", "├"))}) == 1


def test_what_is_doubtful_about_the_headline_is_said_in_every_format(compare):
    words = (
        "the last interval of feb (37.66 to 40.86 tok/s/user), where its reach ends: the ratio is",
        "rests on a first or last interval",
        "one run only at the points around it",
        "no accuracy was measured at the points around it",
        "cost assumes MI355X $1.48 per GPU-hour (hyperscaler, valid from 2025-08-01)",
    )
    for form in ("table", "markdown", "csv", "json"):
        code, out, _ = compare(*MONTHS, "--at", "40", "--format", form)
        assert code == 0
        for each in words:
            assert each in out, form
        # Machines get each flag whole; the table has its figures in a row.
        for each in ("40 lies in the last", "17.7x to 20.1x over the interpolation rules"):
            assert (each in out) == (form in ("csv", "json")), form
        assert "17.7x to 20.1x" in out
    _, out, _ = compare(*MONTHS, "--at", "40", "--format", "latex")
    assert words[0] in out
    assert r"cost assumes MI355X \$1.48 per GPU-hour" in out


@pytest.mark.parametrize("form", ["table", "markdown", "latex"])
def test_flags_are_a_line_a_kind_however_many_points_have_them(compare, form):
    _, out, _ = compare(*MONTHS, "--every", "5", "--format", form)
    kinds = ("price assumption", "too few", "accuracy missing", "regime extension", "end segment")
    for kind in kinds:
        assert sum(kind in line for line in out.splitlines()) == 1, kind
    assert out.count("(all points).") == 2
    ends = next(line for line in out.splitlines() if "end segment" in line)
    assert "(apr and may at 20, 25, 40)." in ends


def test_every_lists_targets_over_what_any_series_reaches(compare):
    _, out, _ = compare("feb", "may", "--every", "20", "--json")
    found = json.loads(out)
    assert found["targets"] == [20, 40, 60]
    assert found["series"][1]["area"]["band"] == [19.22, 40.86]
    code, _, err = compare("feb", "--every", "20", "--at", "20")
    assert (code, "exclude each other" in err) == (2, True)


def test_csv_is_tidy(compare):
    code, out, _ = compare(*MONTHS, "--at", "20,50", "--format", "csv", "--price", "MI355X=3")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 6
    may = next(r for r in rows if (r["series"], r["interactivity"]) == ("may", "20.0"))
    throughput, cost = float(may["tput_per_gpu"]), float(may["usd_per_million_tokens"])
    assert cost == pytest.approx(3 / (throughput * 0.0036))
    assert (may["usd_per_gpu_hour"], may["price_tier"]) == ("3.0", "given")
    assert math.isinf(float(rows[-1]["ratio"]))


def test_markdown_ends_in_the_assumptions(compare):
    code, out, _ = compare(*MONTHS, "--at", "40", "--format", "markdown", "--tier", "rental")
    assert code == 0
    assert "| 40 | tok/s/GPU | 192\\* | 2,476 | 3,660 |" in out
    price = "MI355X $2.1 per GPU-hour (rental, valid from 2025-08-01)"
    assert f"- price assumption: cost assumes {price} (all series).\n" in out


def test_a_baseline_that_is_not_among_the_series_joins_them(compare):
    code, out, _ = compare("may", "--baseline", "feb", "--at", "20", "--json")
    assert code == 0
    assert [series["name"] for series in json.loads(out)["series"]] == ["feb", "may"]


def test_without_baseline_and_targets_it_chooses_and_says_so(compare):
    code, out, _ = compare("may", "feb")
    assert code == 0
    assert "may (baseline)" in out
    assert "Targets: --at 20,25,30,35,40, chosen where every frontier has a value." in out


def test_rounds_show_intervals_and_hardware_without_a_price_a_note(compare):
    code, out, _ = compare("baseline", "optimised", "--at", "15")
    assert code == 0
    assert "95 % interval" in out
    assert "1.00x to 1.00x" in out
    assert "median of 3 rounds" in out
    assert "baseline: no cost, because CPU has no price; give --price CPU=USD" in out
    code, out, _ = compare("baseline", "--at", "15", "--json")
    reading = json.loads(out)["series"][0]["at"][0]
    assert reading["interval"][0] < reading["tput_per_gpu"] < reading["interval"][1]
    assert reading["usd_per_million_tokens"] is None


def test_the_rule_changes_the_figures(compare):
    def ratio(rule):
        _, out, _ = compare(*MONTHS, "--at", "40", "--json", "--rule", rule)
        return round(json.loads(out)["series"][2]["at"][0]["ratio"], 1)

    assert [ratio(rule) for rule in ("linear", "secant_ends", "steffen")] == [17.7, 18.1, 20.1]


def test_series_that_are_not_alike_are_compared_with_a_warning(compare):
    code, out, err = compare("feb", "optimised", "--at", "30", "--json")
    assert code == 0
    json.loads(out)
    for what in ("model", "hardware", "workload"):
        assert f"warning: the series differ in {what}" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["june"], "series: 'june' is not in the store; it holds feb, apr, may, baseline"),
        (["feb", "--baseline", "june"], "series: 'june' is not in the store; it holds feb"),
        (["--baseline", "june", "--at", "20"], "baseline: 'june' is not compared; give one of feb"),
        (["feb", "--at", "20,fast"], "'--at': 'fast' is not a positive number"),
        (["feb", "--price", "MI355X"], "'--price': 'MI355X' is no price of a GPU-hour"),
        (["feb", "--price", "MI355X=nan"], "'--price': 'MI355X=nan' is no price"),
        (["feb", "--price", "H200=2"], "price: no compared series ran on 'H200'"),
        (["feb", "--tier", "spot"], "tier: no 'spot' price for MI355X; known are hyperscaler"),
        (["feb", "--on", "2020-01-01"], "on: no hyperscaler price for MI355X holds on 2020-01-01"),
        (["feb", "--rule", "cubic"], "'--rule': 'cubic' is not one of 'published'"),
        (
            ["feb", "--isl", "77"],
            "series feb: no points of that --isl and --osl; it has --isl 8192",
        ),
        (["feb", "--json", "--format", "csv"], "--json and --format csv exclude each other"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(compare, arguments, message):
    code, out, err = compare(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("upcurve: error: ")
    assert message in err


def test_no_store_is_an_error_and_makes_none(compare, tmp_path):
    code, out, err = compare("feb", location=str(tmp_path / "absent"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "upcurve import" in err
    assert not (tmp_path / "absent").exists()


def test_an_empty_store_says_how_to_fill_it(compare, tmp_path):
    Store.open(tmp_path).close()
    code, out, err = compare(location=str(tmp_path))
    assert (code, out) == (2, "")
    assert "upcurve import or upcurve bench" in err


def test_accuracy_that_is_required_and_missing_is_exit_1(compare):
    code, out, err = compare("baseline", "optimised", "--at", "20", "--require-accuracy")
    assert code == 1
    assert "tok/s/GPU" in out
    assert [line for line in err.splitlines() if "error" in line] == [
        "upcurve: error: accuracy missing: no accuracy was measured at the points around it "
        "(all points)."
    ]


@pytest.mark.parametrize(("passed", "exit_code"), [(True, 0), (False, 1), (None, 1)])
def test_accuracy_that_is_required_counts_at_the_points_around_a_target(
    tmp_path, capsys, passed, exit_code
):
    rows = [
        {"concurrency": c, "tput_per_gpu": 10 * c, "interactivity": 40 / c}
        | {"isl": 64, "osl": 32, "tp": 1, "gpus": 1}
        for c in (1, 2, 4)
    ]
    with Store.open(tmp_path) as opened:
        fill(opened, "a", "small", "CPU", "2026-11-23", rows)
        ids = {each.concurrency: each.id for each in opened.points("a")}
        for concurrency in (2, 4):
            opened.set_accuracy(ids[concurrency], {"passed": passed})
    words = ["compare", "a", "--at", "15", "--store", str(tmp_path), "--json"]
    with pytest.raises(SystemExit) as stopped:
        run([*words, "--require-accuracy"])
    assert stopped.value.code == exit_code
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run(words)
    assert stopped.value.code == 0
