from __future__ import annotations

import csv
import io
import json

import pytest

from tests.records.examples import point_record, run_record
from upcurve.cli import run
from upcurve.records.store import Store

MONTHS = ("feb", "apr", "may")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return a store with the published rows, and a series whose power was recorded."""
    location = str(tmp_path_factory.mktemp("what_if") / "store")
    with pytest.raises(SystemExit):
        run(["import", "published:mi355x-qwen35", "--store", location])
    with Store.open(location) as opened:
        run_id = opened.begin_run(run_record(series="own", hardware="CPU"))
        for concurrency, speed, tput, joules in ((4, 60.0, 900.0, 4.0), (32, 20.0, 3600.0, 1.5)):
            totals = {"joules_per_output_token": joules, "energy_valid": True}
            opened.add_point(
                run_id,
                point_record(
                    concurrency=concurrency,
                    interactivity=speed,
                    tpot_ms=1000 / speed,
                    tput_per_gpu=tput,
                    output_tput_per_gpu=tput / 9,
                    result={"power": {"totals": totals}},
                ),
            )
        opened.end_run(run_id, "complete")
    return location


@pytest.fixture
def compare(store, capsys):
    capsys.readouterr()

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            run(["compare", *arguments, "--store", store])
        out, err = capsys.readouterr()
        return exit_.value.code, out, err

    return call


def readings(out, name):
    return next(each["at"] for each in json.loads(out)["series"] if each["name"] == name)


def test_a_series_priced_as_another_gpu_keeps_its_throughput(compare):
    plain = readings(compare("may", "--at", "40", "--json")[1], "may")[0]
    code, out, err = compare("may", "--at", "40", "--as-hardware", "may=H200", "--json")
    assert code == 0
    other = readings(out, "may")[0]
    assert other["tput_per_gpu"] == plain["tput_per_gpu"]
    ratio = other["usd_per_million_tokens"] / plain["usd_per_million_tokens"]
    assert ratio == pytest.approx(1.41 / 1.48)
    assert "may is priced as H200; its throughput stays as measured on MI355X." in err
    assert "Price: H200 $1.41 per GPU-hour (hyperscaler, valid from 2025-08-01)." in err


def test_electricity_is_a_price_of_its_own_or_on_top_of_a_given_one(compare):
    power = ("--kw", "MI355X=2", "--usd-per-kwh", "0.1", "--pue", "1.25")
    code, out, err = compare("may", "--at", "40", *power, "--json")
    assert code == 0
    (reading,) = readings(out, "may")
    assert reading["usd_per_million_tokens"] == pytest.approx(
        0.25 / (reading["tput_per_gpu"] * 0.0036)
    )
    assert "MI355X $0.25 per GPU-hour (electricity alone: 2 kW x PUE 1.25 x $0.1 per kWh)" in err
    _, out, err = compare("may", "--at", "40", *power, "--price", "MI355X=1", "--json")
    (both,) = readings(out, "may")
    ratio = both["usd_per_million_tokens"] / reading["usd_per_million_tokens"]
    assert ratio == pytest.approx(5)
    assert "($1 as given, and electricity: 2 kW x PUE 1.25 x $0.1 per kWh)" in err
    _, _, err = compare("may", "--at", "40", *power[:-2], "--json")
    assert "2 kW with the building, no PUE x $0.1 per kWh" in err


def test_energy_of_a_token_is_said_where_power_was_recorded(compare):
    code, out, _ = compare("own", "may", "--at", "20,40,60,70", "--json")
    assert code == 0
    found = [each["joules_per_token"] for each in readings(out, "own")]
    # Power per GPU: 4 x 100 W and 1.5 x 400 W; 500 W and 2,250 tok/s in the middle.
    assert found == pytest.approx([600 / 3600, 500 / 2250, 400 / 900, None])
    assert [each["joules_per_token"] for each in readings(out, "may")] == [None] * 4
    _, out, _ = compare("own", "--at", "40")
    assert "J/token at 40 tok/s/user: own 0.222." in out
    assert "power on the straight line" in out


def test_cost_is_split_as_the_weight_says(compare):
    _, out, _ = compare("may", "--at", "40", "--output-weight", "4", "--json")
    (reading,) = readings(out, "may")
    of_input, of_output = reading["usd_per_million_input"], reading["usd_per_million_output"]
    assert of_output == pytest.approx(4 * of_input)
    whole = reading["usd_per_million_tokens"] * (8192 + 1024)
    assert of_input * 8192 + of_output * 1024 == pytest.approx(whole)
    _, out, _ = compare("may", "--at", "40", "--output-weight", "4")
    assert "$/M input / output at 40 tok/s/user: may $" in out
    assert "an output token is charged as 4 input tokens" in out


def test_csv_has_the_further_columns(compare):
    _, out, _ = compare("own", "--at", "40", "--format", "csv", "--price", "CPU=1")
    (row,) = csv.DictReader(io.StringIO(out))
    assert float(row["joules_per_token"]) == pytest.approx(500 / 2250)
    assert row["usd_per_million_input"] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--as-hardware", "june=H200"], "as-hardware: 'june' is not compared; compared are may"),
        (["--as-hardware", "may"], "'may' names no hardware for a series; give e.g. may=H200"),
        (["--kw", "MI355X=2"], "kw: power has no price; give --usd-per-kwh"),
        (["--usd-per-kwh", "0.1"], "usd-per-kwh: no power is given; give --kw"),
        (["--pue", "1.2"], "pue: no power is given; give --kw"),
        (["--pue", "0.5"], "'--pue': 0.5 is not in the range"),
        (["--kw", "MI355X=-2"], "'MI355X=-2' is no power of a GPU in kW"),
        (
            ["--kw", "H200=1", "--usd-per-kwh", "0.1"],
            "kw: no compared series is priced as 'H200'; they are priced as MI355X",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(compare, arguments, message):
    code, out, err = compare("may", "--at", "40", *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
