"""Charts: every axis from the rows themselves, bands, markers, dominated points, prices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.dashboard.conftest import client_of
from tests.records.examples import point_record, run_record
from upcurve.records.store import Store

NIGHTLY = "nightly-2026-06-02"


def drawn(client: TestClient, query: str) -> dict[str, Any]:
    answer = client.get(f"/api/v1/frontier?{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_curve_is_the_comparison_s(published: TestClient) -> None:
    (may,) = drawn(published, "series=may")["series"]
    curve = dict(zip(may["curve"]["x"], may["curve"]["y"], strict=True))
    at = ",".join(str(x) for x in list(curve)[1:-1:7])
    told = published.get(f"/api/v1/compare?series=may&at={at}").json()["comparison"]["series"][0]
    for reading in told["at"]:
        assert reading["tput_per_gpu"] == pytest.approx(curve[reading["interactivity"]], rel=1e-4)
    assert [(each["x"], each["y"], each["tp"]) for each in may["frontier"]] == [
        (each["interactivity"], each["tput_per_gpu"], each["tp"]) for each in told["frontier"]
    ]


def test_each_y_is_made_of_throughput(nightlies: TestClient) -> None:
    of = {
        y: drawn(
            nightlies, f"series={NIGHTLY}&y={y}&price=H200=2&kw=H200=1.5&pue=1.2&usd_per_kwh=1"
        )
        for y in ("total", "input", "output", "cost", "per_mw")
    }
    total, cost, power = (of[y]["series"][0] for y in ("total", "cost", "per_mw"))
    usd = 2 + 1.5 * 1.2  # what is given, and electricity on top
    for base, own, mega in zip(total["frontier"], cost["frontier"], power["frontier"], strict=True):
        assert own["y"] == pytest.approx(usd / (base["y"] * 0.0036))
        assert mega["y"] == pytest.approx(base["y"] * 1000 / 1.8)
        low, high = base["y_interval"]
        assert own["y_interval"] == pytest.approx([usd / (high * 0.0036), usd / (low * 0.0036)])
        assert own["x_interval"] == base["x_interval"]
    for base, own in zip(total["curve"]["y"], cost["curve"]["y"], strict=True):
        assert own == pytest.approx(usd / (base * 0.0036), rel=1e-4)
    # The store's rows are 8/9 input.
    for name, share in (("input", 8 / 9), ("output", 1 / 9)):
        (own,) = of[name]["series"]
        assert [each["y"] for each in own["frontier"]] == pytest.approx(
            [each["y"] * share for each in total["frontier"]]
        )
    assert any("electricity" in line for line in of["cost"]["assumptions"])
    assert any("1.5 kW per GPU x PUE 1.2, as given" in line for line in of["per_mw"]["assumptions"])


def test_a_band_lies_around_its_curve_on_every_axis(nightlies: TestClient) -> None:
    for x in ("interactivity", "e2e"):
        for y in ("total", "cost"):
            (own,) = drawn(nightlies, f"series={NIGHTLY}&x={x}&y={y}")["series"]
            band = own["band"]
            curve = np.interp(band["x"], own["curve"]["x"], own["curve"]["y"])
            assert (np.array(band["low"]) <= curve * (1 + 1e-5)).all()
            assert (np.array(band["high"]) >= curve * (1 - 1e-5)).all()
            assert band["x"] == sorted(band["x"])


def test_latency_axes_are_better_to_the_left(nightlies: TestClient) -> None:
    answer = drawn(nightlies, f"series={NIGHTLY}&x=ttft")
    (own,) = answer["series"]
    assert answer["x"]["higher_is_better"] is False
    assert [each["x"] for each in own["frontier"]] == [120.0, 240.0, 360.0]
    assert [each["concurrency"] for each in own["frontier"]] == [4, 16, 64]


def test_what_was_not_recorded_is_said(published: TestClient) -> None:
    for axes, words in (
        ("x=e2e", "no end-to-end latency was recorded"),
        ("x=ttft", "no time to first token was recorded"),
        ("y=output", "no output throughput was recorded"),
        ("y=joules", "no power was recorded"),
    ):
        (own,) = drawn(published, f"series=may&{axes}")["series"]
        assert (own["reason"], own["frontier"]) == (words, [])


def test_dominated_points_come_on_demand(published: TestClient) -> None:
    (few,) = drawn(published, "series=may")["series"]
    (every,) = drawn(published, "series=may&dominated=true")["series"]
    assert (few["dominated"], few["dominated_count"]) == ([], 1)
    (only,) = every["dominated"]
    assert (only["tp"], only["concurrency"]) == (4, 64)  # TP2 at 32 beats it on both


def test_changes_stand_beside_the_series_that_brought_them(
    published: TestClient, nightlies: TestClient
) -> None:
    of = {
        each["name"]: each["marker"] for each in drawn(published, "series=feb&series=apr")["series"]
    }
    assert of["feb"] is None
    assert [each["url"].rpartition("/")[2] for each in of["apr"]["links"]] == [
        "21188",
        "21421",
        "20736",
    ]
    (own,) = drawn(nightlies, f"series={NIGHTLY}")["series"]
    assert own["marker"]["links"] == [
        {"text": "engine#101", "url": "https://github.com/example/engine/pull/101"}
    ]
    assert (own["marker"]["x"], own["marker"]["y"]) == (
        own["frontier"][0]["x"],
        own["frontier"][0]["y"],
    )


def test_energy_needs_power_at_every_frontier_point(tmp_path: Path) -> None:
    def result(joules: float | None) -> dict[str, Any]:
        totals = {"joules_per_output_token": joules, "energy_valid": True}
        return {"power": {"totals": totals}} if joules else {}

    with Store.open(tmp_path) as store, client_of(store) as client:
        run = store.begin_run(run_record(series="a", hardware="X1"))
        for concurrency, (speed, tput) in {4: (75.0, 1000.0), 8: (50.0, 2000.0)}.items():
            store.add_point(
                run,
                point_record(
                    concurrency=concurrency,
                    interactivity=speed,
                    tput_per_gpu=tput,
                    output_tput_per_gpu=tput / 9,
                    result=result(5.4),
                ),
            )
        (own,) = drawn(client, "series=a&y=joules")["series"]
        # 5.4 J per output token, of which there is one in nine.
        assert [each["y"] for each in own["frontier"]] == pytest.approx([0.6, 0.6])
        middle = own["curve"]["x"].index(62.5) if 62.5 in own["curve"]["x"] else None
        watts = [0.6 * 2000, 0.6 * 1000]
        x = np.array(own["curve"]["x"])
        expected = np.interp(x, [50, 75], watts) / np.interp(x, [50, 75], [2000, 1000])
        assert own["curve"]["y"] == pytest.approx(expected, rel=1e-5)
        assert middle is None or own["curve"]["y"][middle] == pytest.approx(0.6, rel=1e-5)
        store.add_point(run, point_record(concurrency=1, interactivity=90.0, tput_per_gpu=300.0))
        (own,) = drawn(client, "series=a&y=joules")["series"]
        assert own["reason"] == "no power was recorded"
        (own,) = drawn(client, "series=a&y=cost")["series"]
        assert own["reason"] == "its hardware has no price; give one"
        (own,) = drawn(client, "series=a&y=per_mw")["series"]
        assert own["reason"] == "the power of its hardware is not known; give kw"


def test_several_series_are_each_drawn_as_alone(nightlies: TestClient) -> None:
    names = [each["name"] for each in nightlies.get("/api/v1/series").json()["items"]][:4]
    together = drawn(nightlies, "&".join(f"series={name}" for name in names))["series"]
    alone = [drawn(nightlies, f"series={name}")["series"][0] for name in names]
    assert together == alone
    group = alone[0]["group"]
    of_group = drawn(nightlies, f"group={group}")
    assert all(each in of_group["series"] for each in alone if each["group"] == group)


def test_the_limit_lies_above_the_published_curves(published: TestClient) -> None:
    group = published.get("/api/v1/meta").json()["groups"][0]["id"]
    for y, better in (("total", max), ("cost", min), ("per_mw", max)):
        found = published.get(f"/api/v1/limit?group={group}&y={y}").json()
        assert (found["hardware"], found["precision"], found["reason"]) == ("MI355X", "fp8", None)
        x, line = ([each[name] for each in found["points"]] for name in ("x", "y"))
        assert x == sorted(x)
        for series in drawn(published, f"group={group}&y={y}")["series"]:
            for each in series["frontier"]:
                bound = float(np.interp(each["x"], x, line))
                assert better(bound, each["y"]) == bound
    for query, words in (
        ("x=ttft", "does not depend"),
        ("y=joules", "no limit"),
        ("hardware=X1", "no specification of 'X1'"),
    ):
        found = published.get(f"/api/v1/limit?group={group}&{query}").json()
        assert words in found["reason"]
        assert found["points"] == []
    other = published.get("/api/v1/limit?model=gpt&isl=1&osl=1&hardware=H200").json()
    assert other["reason"] == "the shape of this model is not known"
