"""The waterfall in words, tables and rows."""

from __future__ import annotations

import json
import math

import pytest

from tests.frontier.test_attribution import ALL, full, measured
from upcurve.frontier.attribution import Value, attribute
from upcurve.frontier.attribution_data import tidy_rows, to_dict
from upcurve.frontier.flags import Flag
from upcurve.frontier.waterfall import (
    TOGETHER,
    all_remarks,
    header,
    headline,
    legend,
    markdown,
    remarks,
    steps,
    table,
)

LABELS = {on: "off " + ",".join(sorted(set("abc") - on)) for on in ALL}
PRICED = dict.fromkeys(ALL, 2.0)


def test_steps_lead_from_the_baseline_to_the_full_configuration() -> None:
    found = steps(full(measured(3, 0.01)))
    assert [step.name for step in found] == ["baseline (all off)", *"abc", "full (all on)"]
    moves = found[1:-1]
    assert found[0].level
    assert found[-1].level
    assert moves[0].start == pytest.approx(found[0].end)
    assert moves[-1].end == pytest.approx(found[-1].end)
    assert [b.start for b in moves[1:]] == [a.end for a in moves[:-1]]
    assert all(step.low < step.end < step.high for step in found)
    assert all(step.low is None for step in steps(full(measured(2, 0.01))))


def test_the_table_says_factors_intervals_shares_and_costs() -> None:
    found = full(measured(3, 0), prices=PRICED)
    head, rows = header(found), table(found)
    assert all(len(row) == len(head) for row in rows)
    by_name = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert by_name["a"]["factor"] == "1.733x"
    assert by_name["a"]["95 % interval"] == "1.733 to 1.733"
    assert by_name["a"]["of the move"] == "106 %"
    assert by_name["b"]["alone"] == "0.905x +-0.0 %"
    assert by_name["b"]["last"] == "1.000x +-0.0 %"
    assert by_name["all"]["$/M tokens"].startswith("-$2.25 ")
    # a overshoots: its bar is the widest, b takes back in another shade.
    assert by_name["a"]["baseline to full"].count("█") == 24
    assert by_name["b"]["baseline to full"].strip() == "░░"
    assert headline(found) == (
        "At 40 tok/s/user: 100 to 168 tok/s/GPU, 1.682x (1.682 to 1.682), $5.56 to $3.30 per "
        "million tokens; 3 rounds."
    )
    assert "$/M tokens" not in header(full(measured(3, 0)))


def test_a_move_that_may_be_none_has_no_percentages() -> None:
    noisy = full({index: {on: Value(100 + index) for on in ALL} for index in range(3)})
    assert [row[3] for row in table(noisy)] == ["", "", "", "100 %"]


def test_without_shares_the_words_say_why_and_where_to_look() -> None:
    values = measured(3, 0.01)
    for each in values.values():
        each[frozenset()] = Value(None, "its frontier ends at 35 tok/s/user")
    found = full(values)
    assert table(found) == []
    assert "no shares" in headline(found)
    said = remarks(found, LABELS, precision=0.02, reached=(12.0, 35.0))
    assert said[0] == (
        "At 40 tok/s/user: round 1 is left out: off a,b,c: its frontier ends at 35 tok/s/user."
    )
    assert said[-1] == "Every configuration reaches 12 to 35 tok/s/user: give --at in there."
    assert "widen concurrency" in remarks(found, LABELS, precision=None, reached=None)[-1]
    assert "|" not in markdown(found)


def test_remarks_say_how_many_more_rounds_and_where_the_rule_matters() -> None:
    values = measured(4, 0.02)
    values[0][frozenset()] = Value(100, end=True)
    found = full(values)
    end, more = remarks(found, LABELS, precision=0.001, reached=None)
    assert "1 of 32 readings lie in the first or last interval" in end
    assert f"about {found.more_rounds(0.001)} more rounds at this spread" in more
    assert remarks(full(measured(3, 0)), LABELS, precision=0.001, reached=None) == []
    (unknown,) = remarks(full(measured(1, 0.01)), LABELS, precision=0.001, reached=None)
    assert unknown.endswith("how many rounds it takes is not known yet.")


def test_flags_are_a_line_a_kind_over_all_targets_and_configurations() -> None:
    few, missing = Flag("few", "one run at 40", "one run"), Flag("missing", "no accuracy")
    rounds = measured(3, 0.01)
    found = [attribute(rounds, "abc", interactivity=at, design="full") for at in (30, 40)]
    flags = [
        {"all off": [few, missing], "all on": [missing]},
        {"all off": [few, missing], "all on": [few, missing]},
    ]
    said = all_remarks(found, LABELS, flags, precision=None, reached=None)
    assert said == [
        "few: one run (all off at 30, 40; all on at 40).",
        "missing: no accuracy (all points).",
        *legend(found),
    ]


def test_the_bar_of_what_is_left_is_named_and_explained() -> None:
    found = attribute(measured(3, 0.01), "abc", interactivity=40, design="one")
    assert [row[0] for row in table(found)] == [*"abc", TOGETHER, "all"]
    assert TOGETHER in legend([found])[0]
    assert "It takes three rounds" not in " ".join(legend([found]))
    assert legend([full(measured(2, 0))])[-1] == "No interval: it takes three rounds."


def test_machines_get_every_figure() -> None:
    found = full(measured(4, 0.01), prices=PRICED)
    data = json.loads(json.dumps(to_dict(found)))
    total = math.fsum(each["log_ratio"]["mean"] for each in data["shares"])
    assert total == pytest.approx(data["move"]["log_ratio"]["mean"], abs=1e-12)
    ratio = data["full"]["tput_per_gpu"] / data["baseline"]["tput_per_gpu"]
    assert math.log(ratio) == pytest.approx(total)
    rows = tidy_rows([found], [{"all off": [Flag("few", "x"), Flag("failed", "x")], "all on": []}])
    assert {row["flags"] for row in rows} == {"few: all off: x; failed: all off: x"}
    assert [row["switch"] for row in rows] == list("abc")
    assert rows[0]["usd_low"] < rows[0]["usd"] < rows[0]["usd_high"]
    assert rows[0]["log_ratio"] == found.shares[0].log.mean
    bare = tidy_rows([full(measured(1, 0))], [{}])
    assert (bare[0]["usd"], bare[0]["log_ratio_low"]) == (None, None)
    assert list(bare[0]) == list(rows[0])
