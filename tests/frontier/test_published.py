"""The published comparison of three dates of Qwen3.5-397B on MI355X, from its measured rows."""

from __future__ import annotations

import csv
import math
from datetime import date
from decimal import Decimal
from importlib.resources import files

import pytest

from upcurve.frontier.comparison import compare
from upcurve.frontier.cost import PriceTable, usd_per_million_tokens
from upcurve.frontier.point import Point

PUBLISHED = files("upcurve.records") / "published"


def read(name):
    return list(csv.DictReader((PUBLISHED / name).read_text().splitlines()))


MEASURED = read("mi355x_qwen35_397b_fp8_8k1k.csv")
TABLE = read("mi355x_qwen35_397b_iso_interactivity.csv")
TARGETS = [float(row["interactivity"]) for row in TABLE]


def series():
    found = {}
    for row in MEASURED:
        tp, gpus, concurrency = int(row["tp"]), int(row["gpus"]), int(row["concurrency"])
        point = Point(
            float(row["interactivity"]), float(row["tput_per_gpu"]), tp, gpus, concurrency
        )
        found.setdefault(row["series"], []).append(point)
    return found


def at_targets(baseline="feb", rule="published"):
    comparison = compare(
        series(),
        baseline=baseline,
        targets=TARGETS,
        usd_per_gpu_hour=dict.fromkeys(series(), 1.48),
        rule=rule,
    )
    return {each.name: {r.interactivity: r for r in each.at} for each in comparison.series}


def as_printed(value, text):
    """Round to the decimals that the published figure has."""
    return round(Decimal(value), -Decimal(text).as_tuple().exponent)


def test_all_values_come_out_as_published():
    readings, finite = at_targets(), 0
    for row in TABLE:
        for name in ("feb", "apr", "may"):
            reading, text = readings[name][float(row["interactivity"])], row[name]
            if text == "unreachable":
                assert (reading.status, reading.tput_per_gpu) == ("unreachable", None)
                assert reading.usd_per_million_tokens is None
            else:
                assert as_printed(reading.tput_per_gpu, text) == Decimal(text)
                assert reading.status == "interpolated"
                finite += 1
    assert finite == 16


def test_all_ratios_come_out_as_published():
    finite = 0
    for baseline in ("feb", "apr"):
        readings = at_targets(baseline)["may"]
        for row in TABLE:
            ratio, text = readings[float(row["interactivity"])].ratio, row[f"may_over_{baseline}"]
            if text == "inf":
                assert ratio == math.inf
            else:
                assert as_printed(ratio, text) == Decimal(text)
                finite += 1
    assert finite == 10


def test_the_headline_rests_on_the_end_of_a_frontier_and_on_the_rule():
    at_40 = at_targets()["feb"][40], at_targets()["may"][40]
    assert [reading.segment for reading in at_40] == ["end", "interior"]
    low, high = at_40[1].rule_ratios
    assert (round(low, 1), round(high, 1)) == (17.7, 20.1)
    assert at_targets("apr")["may"][40].rule_ratios is None


@pytest.mark.parametrize(
    ("rule", "ratio"),
    [("linear", 17.7), ("secant_ends", 18.1), ("published", 19.0), ("steffen", 20.1)],
)
def test_the_headline_under_every_rule(rule, ratio):
    assert round(at_targets(rule=rule)["may"][40].ratio, 1) == ratio


def test_the_published_cost_of_every_row():
    prices = PriceTable.from_csv((PUBLISHED / "gpu_prices.csv").read_text().splitlines())
    assert len(MEASURED) == 21
    for row in MEASURED:
        measured_on = date.fromisoformat(row["measured_on"])
        price = prices.lookup(row["hardware"], "hyperscaler", measured_on).usd_per_gpu_hour
        assert price == 1.48
        text = row["published_cost_per_million"]
        cost = usd_per_million_tokens(price, float(row["tput_per_gpu"]))
        assert round(Decimal(cost), 2) == Decimal(text)
