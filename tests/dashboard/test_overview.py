"""The overview: the best series at each tier and its newest change, by the comparison's rules."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.dashboard.conftest import client_of
from tests.records.examples import NOON, point_record, run_record
from upcurve.records.store import Store


def rows(client: TestClient, query: str = "tiers=20,40,60") -> list[dict[str, Any]]:
    answer = client.get(f"/api/v1/overview?{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["rows"]
    return found


def build(store: Store, version: str, gain: float, repeats: int, **changes: Any) -> None:
    """Record one build of a nightly series: three concurrencies, some repeats, 0.4 % of noise."""
    day = NOON + timedelta(days=int(version))
    run = store.begin_run(
        run_record(
            series=f"nightly-0.{version}",
            engine_version=version,
            started_at=day,
            fingerprint=version.zfill(64),
            **changes,
        )
    )
    for repeat in range(repeats):
        # Neighbouring builds scatter in opposite ways: nothing of it cancels in their ratio.
        way = 1 if int(version) % 2 else -1
        scatter = 1 + way * 0.004 * (repeat - (repeats - 1) / 2)
        for place, concurrency in enumerate([4, 16, 64]):
            store.add_point(
                run,
                point_record(
                    concurrency=concurrency,
                    repeat=repeat,
                    measured_at=day,
                    interactivity=[80.0, 50.0, 15.0][place] * scatter,
                    tput_per_gpu=[1000.0, 2000.0, 4000.0][place] * gain * scatter,
                ),
            )
    store.end_run(run, "complete")


def test_each_tier_has_the_best_series_and_its_ratio_over_the_build_before(
    published: TestClient,
) -> None:
    (row,) = rows(published)
    told = published.get(
        "/api/v1/compare?series=apr&series=may&series=feb&baseline=apr&at=20,40,60"
    ).json()["comparison"]["series"]
    may = next(each for each in told if each["name"] == "may")
    for tier, reading in zip(row["tiers"], may["at"], strict=True):
        assert tier["best"] == "may"
        for name in ("tput_per_gpu", "status", "segment", "interval", "usd_per_million_tokens"):
            assert tier[name] == reading[name]
        assert tier["change"]["ratio"] == pytest.approx(reading["ratio"])
        assert tier["change"]["series"] == ["apr", "may"]
        assert (tier["change"]["before"], tier["change"]["after"]) == ("0.5.10rc0", "0.5.12")
        assert tier["change"]["verdict"] == "one run"
    (beyond,) = rows(published, "tiers=500")[0]["tiers"]
    assert (beyond["best"], beyond["change"]) == (None, None)


@pytest.mark.parametrize(
    ("gain", "verdict"), [(1.2, "better"), (0.8, "worse"), (1.001, "no change shown")]
)
def test_a_planted_change_is_found_with_its_interval(
    tmp_path: Path, gain: float, verdict: str
) -> None:
    with Store.open(tmp_path) as store, client_of(store) as client:
        build(store, "1", 1.0, 5)
        build(store, "2", gain, 5)
        (row,) = rows(client, "tiers=40")
        change = row["tiers"][0]["change"]
        assert change["verdict"] == verdict
        low, high = change["ratio_interval"]
        assert low <= change["ratio"] <= high
        assert low <= gain <= high
        # What a later build changes is seen at once.
        build(store, "3", 2.0, 5)
        (row,) = rows(client, "tiers=40")
        assert row["tiers"][0]["best"] == "nightly-0.3"
        assert row["tiers"][0]["change"]["ratio"] == pytest.approx(2 / gain, rel=0.01)


def test_the_change_is_of_the_best_series_own_history(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, client_of(store) as client:
        build(store, "1", 1.0, 1)
        build(store, "2", 1.1, 1)
        build(store, "9", 3.0, 1, hardware="B200")
        (row,) = rows(client, "tiers=40")
        assert (row["tiers"][0]["best"], row["tiers"][0]["change"]) == ("nightly-0.9", None)
        (row,) = rows(client, "tiers=40&hardware=MI355X")
        assert row["tiers"][0]["best"] == "nightly-0.2"
        assert row["tiers"][0]["change"]["ratio"] == pytest.approx(1.1)
        assert rows(client, "q=gpt") == []


def test_groups_are_paged_newest_first_and_tell_of_accuracy(nightlies: TestClient) -> None:
    every = rows(nightlies)
    last = [each["group"]["last_measured_on"] for each in every]
    assert last == sorted(last, reverse=True)
    paged = [rows(nightlies, f"limit=1&offset={place}")[0] for place in range(len(every))]
    assert paged == every
    glance = next(each["accuracy"] for each in every if each["accuracy"])
    assert glance == {"checked": 36, "failed": 1}  # of twelve builds, one point's check failed


def test_a_tier_without_a_value_says_why(published: TestClient) -> None:
    (row,) = rows(published, "tiers=1,9.5,15,100")
    statuses = [each["status"] for each in row["tiers"]]
    # apr begins at 9.2, may at 11.56, feb at 19.22; none goes beyond 75.22.
    assert statuses == ["below_range", "interpolated", "interpolated", "unreachable"]
    assert [each["best"] for each in row["tiers"]] == [None, "apr", "may", None]
