"""Runs whole, requests in time, accuracy by point, ablations from the store."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from scipy.stats import binomtest
from starlette.testclient import TestClient

from tests.dashboard.conftest import client_of
from tests.records.examples import point_record, run_record
from upcurve.dashboard.answers.accuracy import wilson
from upcurve.load.trace import from_table
from upcurve.records.store import Store


def get(client: TestClient, path: str) -> Any:
    answer = client.get(f"/api/v1/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_runs_are_filtered_and_paged(nightlies: TestClient) -> None:
    every = get(nightlies, "runs?limit=500")
    assert every["total"] == len(every["items"]) == 37
    assert [each["started_at"] for each in every["items"]] == sorted(
        (each["started_at"] for each in every["items"]), reverse=True
    )
    pages = [get(nightlies, f"runs?limit=10&offset={place}")["items"] for place in (0, 10, 20, 30)]
    assert [each for page in pages for each in page] == every["items"]
    assert get(nightlies, "runs?status=failed")["items"][0]["series"] == "broken"
    assert get(nightlies, "runs?series=nightly-2026-06-01")["total"] == 3
    assert get(nightlies, "runs?q=0.6.11")["total"] == 3
    group = get(nightlies, "meta")["groups"][0]["id"]
    assert get(nightlies, f"runs?group={group}")["total"] == 36


def test_a_run_is_what_the_store_holds_of_it(nightlies: TestClient, rich_folder: Path) -> None:
    item = get(nightlies, "runs?series=nightly-2026-06-03")["items"][-1]
    detail = get(nightlies, f"runs/{item['id']}")
    assert detail["run"] == item
    with Store.open(rich_folder) as store:
        found = store.find_run(item["id"])
        assert found
        run, points = found
    for name in ("recipe", "host", "gpus", "software", "fingerprint", "image", "engine_commit"):
        assert detail[name] == json.loads(json.dumps(getattr(run, name)))
    assert [each["tput_per_gpu"] for each in detail["points"]] == [p.tput_per_gpu for p in points]
    assert [each["e2e_ms"] for each in detail["points"]] == [
        each.result["e2e_ms"]["p50"] for each in points
    ]
    assert detail["command"] == "serve --tp {tp}"
    assert detail["log"]["text"] == "upcurve 0.6.2: ready on port 8000\n"
    assert get(nightlies, f"runs/{item['id']}?log_bytes=0")["log"]["text"] == ""


def test_a_timeline_is_the_trace_in_ms_from_the_first_request(
    nightlies: TestClient, rich_folder: Path
) -> None:
    runs = get(nightlies, "runs?series=nightly-2026-06-03")["items"]
    points = [p for run in runs for p in get(nightlies, f"runs/{run['id']}")["points"]]
    (traced,) = [each for each in points if each["timeline"]]
    whole = get(nightlies, f"points/{traced['id']}/timeline")
    with Store.open(rich_folder) as store:
        trace = sorted(from_table(store.trace(traced["id"])), key=lambda each: each.sent_ns)
    assert (whole["total"], len(whole["requests"])) == (len(trace), len(trace))
    assert whole["point"] == traced
    start = trace[0].sent_ns
    for told, each in zip(whole["requests"], trace, strict=True):
        assert each.first_content_ns is not None
        assert told["sent"] == pytest.approx((each.sent_ns - start) / 1e6, abs=1e-3)
        assert told["first"] == pytest.approx((each.first_content_ns - start) / 1e6, abs=1e-3)
        assert told["scheduled"] <= told["sent"] <= told["first"] <= told["last"] <= told["ended"]
        assert (told["index"], told["warm_up"]) == (each.index, each.warm_up)
    part = get(nightlies, f"points/{traced['id']}/timeline?limit=5&offset=3")
    assert part["requests"] == whole["requests"][3:8]
    other = next(each for each in points if not each["timeline"])
    assert nightlies.get(f"/api/v1/points/{other['id']}/timeline").status_code == 404


def test_a_timeline_shows_what_the_server_said_and_survives_a_lost_trace(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, client_of(store) as client:
        run = store.begin_run(run_record())
        at = [2_000_000, 3_000_000]
        server = pyarrow.table(
            {
                "time_ns": [at[0], at[0], at[0], at[1]],
                "name": ["vllm:num_requests_running", "vllm:num_requests_waiting"] * 2,
                "labels": ["engine=0", "engine=0", "engine=0", "engine=0"],
                "value": [3.0, 7.0, 0.0, 1.0],
            }
        ).slice(0, 4)
        from tests.dashboard.browser.stores import _requests

        trace = _requests(4, 10.0)
        point = store.add_point(run, point_record(), trace, {"server": server})
        load = get(client, f"points/{point}/timeline")["load"]
        start = min(trace["sent_ns"].to_pylist())
        assert load["at"] == [pytest.approx((each - start) / 1e6, abs=1e-3) for each in at]
        assert (load["waiting"][0], load["running"][1], load["waiting"][1]) == (7.0, None, 1.0)
        for file in (tmp_path / "traces" / run).iterdir():
            file.unlink()
        answer = client.get(f"/api/v1/points/{point}/timeline?limit=9")
        assert (answer.status_code, answer.json()["problem"]) == (404, "its requests were not kept")


@pytest.mark.parametrize(("right", "items"), [(0, 10), (10, 10), (1261, 1319), (1, 2)])
def test_wilson_s_interval_is_scipy_s(right: int, items: int) -> None:
    expected = binomtest(right, items).proportion_ci(0.95, "wilson")
    assert wilson(right / items, items) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_accuracy_is_told_by_point_with_its_interval(nightlies: TestClient) -> None:
    group = get(nightlies, "meta")["groups"][0]["id"]
    found = get(nightlies, f"accuracy?group={group}")
    assert (found["total"], found["unchecked"]) == (36, [])
    failed = [each for each in found["items"] if each["passed"] is False]
    assert [(each["series"], each["concurrency"]) for each in failed] == [
        ("nightly-2026-06-04", 64)
    ]
    (bad,) = failed
    assert (bad["score"], bad["items"], bad["threshold"]) == (0.902, 1319, 0.94)
    assert bad["interval"] == pytest.approx(wilson(0.902, 1319))
    own = get(nightlies, "accuracy?series=nightly-2026-06-04")
    assert (own["total"], {each["series"] for each in own["items"]}) == (3, {"nightly-2026-06-04"})
    assert get(nightlies, "accuracy?series=broken")["unchecked"] == ["broken"]


@pytest.mark.parametrize(
    "recorded",
    [
        {"task": "t", "score": "high", "n": -1, "passed": "yes"},
        {"task": "t", "score": 0.5, "n": True, "interval": [0.1]},
        {"score": 1.5, "n": 10},
        {"task": 7},
    ],
)
def test_accuracy_of_other_tools_is_told_as_far_as_it_goes(
    tmp_path: Path, recorded: dict[str, Any]
) -> None:
    with Store.open(tmp_path) as store, client_of(store) as client:
        store.add_point(store.begin_run(run_record()), point_record(accuracy=recorded))
        (told,) = get(client, "accuracy")["items"]
        assert (told["interval"], told["passed"], told["recorded"]) == (None, None, recorded)


EFFECTS = {"a": math.log(1.5), "b": math.log(1.1)}


def ablation(store: Store, rounds: int = 3) -> None:
    """Record an ablation of two switches whose effects multiply, with 1 % of noise by round."""
    for index in range(rounds):
        for on in ([], ["a"], ["b"], ["a", "b"]):
            label = {0: "all off", 2: "all on"}.get(len(on)) or f"off {'b' if on == ['a'] else 'a'}"
            asked = {"switches": ["a", "b"], "on": on, "design": "full", "seed": 0, "round": index}
            recipe = {
                "name": f"known: {label}",
                "tp": 1,
                "gpus": 1,
                "concurrency": [2, 6],
                "workload": {"isl": 8, "osl": 8},
                "ablation": asked,
            }
            run = store.begin_run(
                run_record(
                    series=f"known: {label}",
                    recipe=recipe,
                    fingerprint=label.ljust(64, "0"),
                    source="sweep",
                )
            )
            gain = math.exp(sum(EFFECTS[each] for each in on)) * (1 + 0.01 * (index - 1))
            for concurrency, speed, tput in ((2, 80.0, 1000.0), (6, 40.0, 2000.0)):
                figures = {
                    "isl": 8,
                    "osl": 8,
                    "concurrency": concurrency,
                    "interactivity": speed,
                    "tput_per_gpu": tput * gain,
                }
                store.add_point(
                    run, point_record(**figures, tp=1, gpus=1, repeat=index, result=figures)
                )
            store.end_run(run, "complete")


def test_an_ablation_is_split_from_what_the_store_holds(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, client_of(store) as client:
        ablation(store)
        (item,) = get(client, "attribution?at=60&price=MI355X=2")["items"]
        assert item["title"] == "known: Qwen3.5-397B-A17B on MI355X, 8 in / 8 out"
        assert item["reached"] == [40, 80]
        (target,) = item["ablation"]["targets"]
        shares = {each["switch"]: each["log_ratio"]["mean"] for each in target["shares"]}
        assert shares == pytest.approx(EFFECTS)
        assert item["ablation"]["rounds"] == 3
        (bars,) = item["waterfalls"]
        assert [each["name"] for each in bars] == [
            "baseline (all off)",
            "a",
            "b",
            "full (all on)",
        ]
        assert bars[1]["end"] / bars[1]["start"] == pytest.approx(1.5)
        assert target["full"]["usd_per_million_tokens"] is not None
        assert "1.65" in item["headlines"][0]
        # Without targets: round ones that every configuration reaches.
        (unasked,) = get(client, "attribution")["items"]
        chosen = [each["interactivity"] for each in unasked["ablation"]["targets"]]
        assert all(40 <= each <= 80 for each in chosen)
        assert len(chosen) > 1
        group = item["group"]
        assert get(client, f"attribution?group={group}")["items"][0]["id"] == item["id"]


def test_an_ablation_that_was_cut_short_says_what_it_lacks(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, client_of(store) as client:
        ablation(store, rounds=1)
        run = store.begin_run(run_record(series="other"))
        store.add_point(run, point_record())
        (item,) = get(client, "attribution?at=500")["items"]
        assert item["waterfalls"] == [[]]
        assert "no shares" in item["headlines"][0]
        assert any("its frontier ends at 80" in note for note in item["ablation"]["notes"])
