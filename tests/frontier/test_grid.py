from __future__ import annotations

import math
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.frontier.comparison import compare
from upcurve.frontier.cost import Price
from upcurve.frontier.flags import Flag
from upcurve.frontier.grid import grid, header, legend, markdown, tidy_rows
from upcurve.frontier.point import Point
from upcurve.frontier.text import cost_text, ratio_text, throughput_text
from upcurve.frontier.uncertainty import NoiseFloor

OLD = [Point(10, 1000, 8, 8, 64), Point(20, 600, 8, 8, 16), Point(30, 400, 8, 8, 8)]
NEW = [Point(15, 2000, 4, 4, 64), Point(25, 1500, 4, 4, 16), Point(60, 300, 4, 4, 4)]


def comparison(targets, series=None, prices=None):
    return compare(
        series or {"old": OLD, "new": NEW},
        baseline="old",
        targets=targets,
        usd_per_gpu_hour=prices or {},
    )


def texts(lines):
    return {line.label.strip(): line.texts for line in lines}


def test_the_grid_says_each_status_and_marks_ends():
    blocks = grid(comparison([5, 12, 20, 50], prices={"new": 3.6}))
    assert [block[0].target for block in blocks] == ["5", "12", "20", "50"]
    below, one_below, measured, unreachable = map(texts, blocks)
    assert below == {"tok/s/GPU": ("below range", "below range")}
    assert one_below["tok/s/GPU"][0].endswith("*")
    assert one_below["tok/s/GPU"][1] == "below range"
    assert "ratio" not in one_below
    assert measured["tok/s/GPU"][0] == "measured 600"
    assert measured["ratio"][0] == ""
    assert measured["$/M tokens"][0] == ""
    assert unreachable["tok/s/GPU"][0] == "unreachable"
    assert unreachable["ratio"] == ("", "inf")


def test_the_legend_explains_what_is_shown_and_nothing_else():
    plain = legend(comparison([20]), {"new": "a model on a GPU"})
    assert plain[0] == "old: 3 frontier points, 10 to 30 tok/s/user"
    assert plain[1] == "new: a model on a GPU; 3 frontier points, 15 to 60 tok/s/user"
    assert not any(line.startswith(("unreachable", "inf", "below")) for line in plain)
    full = legend(comparison([5, 12, 20, 50]), {})
    for start in ("*", "by rule", "unreachable", "inf", "below range"):
        assert sum(line.startswith(start) for line in full) == 1


def test_repeats_show_their_intervals_and_spreads():
    series = {
        name: [
            Point(p.interactivity, p.tput_per_gpu * factor, p.tp, p.gpus, p.concurrency, index)
            for p in points
            for index, factor in enumerate(factors)
        ]
        for name, points, factors in (("old", OLD, (1, 1.01, 0.99)), ("new", NEW, (1, 1.1, 1)))
    }
    found = comparison([25], series)
    shown = texts(grid(found)[0])
    low, high = found.series[1].at[0].interval
    assert shown["95 % interval"][1] == f"{low:,.0f} to {high:,.0f}"
    spread = found.series[1].at[0].round_ratios
    assert shown["by round"] == ("", f"{spread.minimum:.2f}x to {spread.maximum:.2f}x")
    words = legend(found, {})
    assert any(line.endswith("median of 3 rounds") for line in words)
    for start in ("95 % interval", "by round"):
        assert sum(line.startswith(start) for line in words) == 1


def test_markdown_is_one_table_and_a_list_of_notes():
    found = comparison([12, 20], {"old": OLD, "new|er": NEW})
    lines = markdown(found, ["* starred"]).splitlines()
    assert lines[0] == r"| tok/s/user |  | old (baseline) | new\|er |"
    table = lines[: lines.index("")]
    assert {line.replace(r"\|", "").count("|") for line in table} == {5}
    assert [line.split("|")[1].strip() for line in table[2:]].count("12") == 1
    assert lines[-1] == r"- \* starred"


def test_tidy_rows_have_one_row_per_series_and_target():
    found = comparison([5, 20, 50], prices={"old": 1.5})
    price = Price("H200", 1.5, "rental", date(2025, 8, 1))
    rows = tidy_rows(found, {"old": price, "new": None})
    assert [(row["series"], row["interactivity"]) for row in rows] == [
        (name, target) for name in ("old", "new") for target in (5, 20, 50)
    ]
    assert len({tuple(row) for row in rows}) == 1
    assert rows[1]["usd_per_million_tokens"] == pytest.approx(1.5 / (600 * 0.0036))
    assert (rows[1]["price_tier"], rows[1]["price_valid_from"]) == ("rental", date(2025, 8, 1))
    assert (rows[4]["usd_per_gpu_hour"], rows[4]["usd_per_million_tokens"]) == (None, None)
    assert rows[5]["ratio"] == math.inf


def test_json_and_tidy_rows_carry_the_same_numbers():
    series = {
        name: [
            Point(p.interactivity, p.tput_per_gpu * (1 + r / 100), p.tp, p.gpus, p.concurrency, r)
            for r in range(3)
            for p in points
        ]
        for name, points in {"old": OLD, "new": NEW}.items()
    }
    noise = NoiseFloor(0.02, 9)
    found = compare(
        series,
        baseline="old",
        targets=[5, 20, 26, 50],
        usd_per_gpu_hour={"old": 1.5},
        noise={"new": noise},
        flags={"new": [Flag("price_assumption", "cost assumes $2")]},
    )
    rows = iter(tidy_rows(found, {"old": Price("H200", 1.5), "new": None}))

    def both(value, names):
        """Pairs of columns with the ends of an interval, or with what an object holds."""
        parts = value.values() if isinstance(value, dict) else value or (None,) * len(names)
        return dict(zip(names, parts, strict=True))

    shown = 0
    for own in found.to_dict()["series"]:
        area, own_noise = own["area"] or {}, own["noise_floor"] or {}
        for reading in own["at"]:
            expected = {
                "series": own["name"],
                "baseline": "old",
                "rule": own["rule"],
                "rounds": own["rounds"],
                "usd_per_gpu_hour": own["usd_per_gpu_hour"],
                "area_ratio": area.get("ratio"),
                "noise_floor": own_noise.get("variation"),
                **both(area.get("band"), ("area_band_low", "area_band_high")),
                **both(area.get("interval"), ("area_ratio_low", "area_ratio_high")),
                **both(reading["interval"], ("interval_low", "interval_high")),
                **both(reading["ratio_interval"], ("ratio_low", "ratio_high")),
                **both(reading["rule_ratios"], ("rule_ratio_min", "rule_ratio_max")),
            }
            spread = reading["round_ratios"] or dict.fromkeys(("minimum", "median", "maximum"))
            for name, short in (("minimum", "min"), ("median", "median"), ("maximum", "max")):
                expected[f"round_ratio_{short}"] = spread[name]
            for name in ("interactivity", "status", "segment", "tput_per_gpu"):
                expected[name] = reading[name]
            expected["usd_per_million_tokens"] = reading["usd_per_million_tokens"]
            expected["ratio"] = math.inf if reading["ratio"] == "inf" else reading["ratio"]
            row = next(rows)
            flags = [*own["flags"], *reading["flags"]]
            assert row.pop("flags") == "; ".join(f"{f['code']}: {f['text']}" for f in flags)
            prices = {"price_tier", "price_valid_from"}  # in JSON in the words of a flag
            assert {name: value for name, value in row.items() if name not in prices} == expected
            shown += expected["round_ratio_min"] is not None and expected["ratio_low"] is not None
    assert shown
    assert next(rows, None) is None


def test_heads_name_the_baseline():
    assert header(comparison([20])) == ["old (baseline)", "new"]
    called = compare({"baseline": OLD}, baseline="baseline", targets=[20], usd_per_gpu_hour={})
    assert header(called) == ["baseline"]


@pytest.mark.parametrize(
    ("value", "text"), [(4860.9, "4,861"), (100, "100"), (99.96, "100"), (12.345, "12.3")]
)
def test_throughputs(value, text):
    assert throughput_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(3.861, "3.86x"), (19.04, "19.0x"), (9.996, "10.0x"), (math.inf, "inf")]
)
def test_ratios(value, text):
    assert ratio_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.08457, "$0.0846"), (2.138, "$2.14"), (1234.5, "$1,234")]
)
def test_costs(value, text):
    assert cost_text(value) == text


@given(st.floats(1e-3, 1e6))
def test_figures_keep_three_significant_digits(value):
    for text in (throughput_text(value), cost_text(value).lstrip("$")):
        assert float(text.replace(",", "")) == pytest.approx(value, rel=5.1e-3)
