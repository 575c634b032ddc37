"""The page and the command line say the same."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.dashboard.browser.conftest import PRESET, Dashboard
from tests.dashboard.browser.test_views import Window
from upcurve.cli import run
from upcurve.frontier.text import cost_text, ratio_text, throughput_text

WORDS = {"unreachable": "unreachable", "below_range": "below range"}


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run([*map(str, arguments), "--json"])
    assert not ended.value.code
    return json.loads(capsys.readouterr().out)


def expected(reading: dict[str, Any], *, baseline: bool) -> dict[str, str]:
    """Return the texts of one reading as the terminal's table has them."""
    value = WORDS.get(reading["status"])
    if value is None:
        value = throughput_text(reading["tput_per_gpu"]) + "*" * (reading["segment"] == "end")
        value = f"measured {value}" if reading["status"] == "measured" else value
    ratio, cost = reading["ratio"], reading["usd_per_million_tokens"]
    ratio = None if baseline else math.inf if ratio == "inf" else ratio

    def interval(name: str, text: Any) -> str:
        return " to ".join(map(text, reading[name])) if reading[name] and not baseline else ""

    return {
        "tok/s/GPU": value,
        "95 % interval": " to ".join(map(throughput_text, reading["interval"] or ())),
        "ratio": "" if ratio is None else ratio_text(ratio),
        "95 % of ratio": interval("ratio_interval", ratio_text),
        "by rule": interval("rule_ratios", ratio_text),
        "$/M tokens": "" if cost is None else cost_text(cost),
    }


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        (
            PRESET,
            "feb apr may --baseline feb --at 20,30,40,50,60 --isl 8192 --osl 1024",
        ),
        (
            "?view=compare&series=nightly-2026-06-01&series=nightly-2026-06-12&at=20,40,60"
            "&price=H200=2.5",
            "nightly-2026-06-01 nightly-2026-06-12 --at 20,40,60 --price H200=2.5",
        ),
    ],
    ids=["published", "repeats"],
)
def test_the_comparison_is_that_of_the_command_line(
    visit: Window,
    full: Dashboard,
    capsys: pytest.CaptureFixture[str],
    query: str,
    arguments: str,
) -> None:
    comparison = printed(capsys, "compare", *arguments.split(), "--store", full.store)
    page = visit().open(full.url + query)
    page.wait_for_selector("table.compare")
    cells = page.eval_on_selector_all(
        "table.compare td[data-series]",
        """cells => cells.map(cell => [
            cell.closest('tbody').dataset.target, cell.closest('tr').dataset.line,
            cell.dataset.series, cell.innerText])""",
    )
    shown = {(float(target), line, series): text for target, line, series, text in cells}
    compared = 0
    for series in comparison["series"]:
        for reading in series["at"]:
            baseline = series["name"] == comparison["baseline"]
            for line, text in expected(reading, baseline=baseline).items():
                assert shown.get((reading["interactivity"], line, series["name"]), "") == text
                compared += bool(text)
    assert compared >= 20
    flags = page.locator("main .flags").last.inner_text()
    codes = {
        flag["code"].replace("_", " ")
        for series in comparison["series"]
        for each in [series, *series["at"]]
        for flag in each["flags"]
    }
    assert codes
    assert all(code in flags for code in codes)


def test_the_points_of_the_frontier_are_those_of_the_command_line(
    visit: Window, full: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["feb", "apr", "may"]
    comparison = printed(capsys, "compare", *names, "--at", "40", "--store", full.store)
    page = visit().open(full.url + "?view=frontier&series=feb&series=apr&series=may")
    page.get_by_text("Points as a table").click()
    rows = page.locator("details.more tbody tr").all_inner_texts()
    shown = [row.split("\t")[:3] for row in rows if "dominated" not in row]
    knots = [
        (each["name"], knot["interactivity"], knot["tput_per_gpu"])
        for each in comparison["series"]
        for knot in each["frontier"]
    ]
    assert len(shown) == len(knots) == 18
    for (name, x, y), (series, interactivity, tput) in zip(shown, knots, strict=True):
        assert name == series
        assert float(x) == pytest.approx(interactivity, rel=5e-4)
        assert float(y.replace(",", "")) == pytest.approx(tput, rel=5e-4)
    # As drawn: as many marks as points, the highest throughput at the top.
    dots = page.locator("[data-chart=frontier] g[aria-label=dot]").last.locator("path, circle")
    assert dots.count() == len(knots)


def test_the_history_is_that_of_the_command_line(
    visit: Window, full: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    history = printed(capsys, "history", "nightly*", "--at", "40", "--store", full.store)
    (known,) = history["histories"]
    assert known["state"] == "improvement"
    page = visit().open(full.url + "?view=history&at=40")
    assert "improvement" in page.locator("p.state").inner_text()
    (step,) = known["change_points"]
    row = page.locator("details.more tbody tr").inner_text()
    assert step["build"] in row
    assert f"+{step['ratio'] - 1:.1%}".replace("%", " %") in row
    assert "engine#107" in row


def test_the_waterfall_has_the_planted_factors(visit: Window, full: Dashboard) -> None:
    page = visit().open(full.url + "?view=attribution&at=60")
    headline = page.locator("figcaption").inner_text()
    assert headline.startswith("At 60 tok/s/user: ")
    assert "1.650x" in headline
    bars = page.locator("figure g[aria-label=text] text").all_text_contents()
    # The baseline's throughput, the planted effects, and what all switches on give.
    assert bars[1:3] == ["1.500x", "1.100x"]
    page.get_by_text("Shares as a table").click()
    rows = page.locator("details.more tbody tr").all_inner_texts()
    assert [row.split("\t")[:2] for row in rows] == [["a", "1.500x"], ["b", "1.100x"]]
