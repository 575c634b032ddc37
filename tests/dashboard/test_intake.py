"""Rows that other machines report: with a token, whole or not at all, once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.dashboard.conftest import TOKEN, client_of
from upcurve.cli import run
from upcurve.dashboard import intake
from upcurve.records.store import Store

AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}
ROW = {
    "series": "mine",
    "measured_on": "2026-05-19T08:30:00Z",
    "hardware": "H200",
    "model": "m",
    "isl": 64,
    "osl": 32,
    "tp": 1,
    "gpus": 1,
    "concurrency": 4,
    "tput_per_gpu": 100.5,
    "interactivity": 40,
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    with client_of(store, TOKEN) as opened:
        yield opened


def post(client: TestClient, body: Any, **headers: str) -> Any:
    return client.post("/v1/runs", json=body, headers={**AUTHORISED, **headers})


@pytest.mark.parametrize("path", ["/v1/runs", "/api/v1/runs"])
def test_the_rows_of_an_export_arrive_once(
    client: TestClient,
    store: Store,
    rich_folder: Path,
    capsysbinary: pytest.CaptureFixture[bytes],
    path: str,
) -> None:
    with pytest.raises(SystemExit):
        run(["export", "--format", "json", "--store", str(rich_folder)])
    rows = capsysbinary.readouterr().out
    first = client.post(path, content=rows, headers=AUTHORISED)
    again = client.post(path, content=rows, headers=AUTHORISED)
    count = len(json.loads(rows))
    assert (first.status_code, again.status_code) == (200, 200)
    assert (
        sum(first.json()["added"].values()) == count == sum(again.json()["already_there"].values())
    )
    assert again.json()["added"] == {}
    told = list(store.rows())
    assert len(told) == count
    assert [row["run"] for row in told] == [row["run"] for row in json.loads(rows)]


def test_a_run_with_points_is_the_same_as_its_rows(client: TestClient) -> None:
    of_point = ("isl", "osl", "tp", "gpus", "concurrency", "tput_per_gpu", "interactivity")
    points = [{name: ROW[name] for name in of_point} | {"concurrency": c} for c in (4, 8)]
    of_run = {name: value for name, value in ROW.items() if name not in of_point}
    body = {"run": of_run | {"id": "r1"}, "points": points}
    assert post(client, body).json()["added"] == {"mine": 2}
    detail = client.get("/api/v1/runs/r1").json()
    assert [each["concurrency"] for each in detail["points"]] == [4, 8]
    rows = [of_run | each | {"run": "r1"} for each in points]
    assert post(client, rows).json()["already_there"] == {"mine": 2}
    assert post(client, ROW | {"series": "single"}).json()["added"] == {"single": 1}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("no JSON", 422, "is no JSON"),
        ("[]", 422, "the list is empty"),
        ("[1]", 422, "is no object"),
        ('{"run": 1, "points": []}', 422, "is no run with points"),
        (json.dumps([ROW | {"isl": -1}]), 422, "body, item 1, column 'isl': -1 is below 1"),
        (json.dumps([ROW, ROW | {"tput_per_gpu": "fast"}]), 422, "item 2, column 'tput_per_gpu'"),
        (json.dumps([{"series": "mine"}]), 422, "the column is missing"),
        (json.dumps([ROW | {"run": "../../evil"}]), 422, "has the wrong form"),
        (json.dumps([ROW | {"model": "a\x00b"}]), 422, "has the wrong form"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_changes_nothing(
    client: TestClient, store: Store, body: str, status: int, words: str
) -> None:
    answer = client.post("/v1/runs", content=body, headers=AUTHORISED)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert "--" not in answer.json()["error"]  # options of a command are no help here
    assert store.series() == []


def test_a_run_of_the_same_id_with_other_rows_is_a_conflict(client: TestClient) -> None:
    assert post(client, [ROW | {"run": "r1"}]).status_code == 200
    answer = post(client, [ROW | {"run": "r1", "tput_per_gpu": 1}])
    assert answer.status_code == 409
    assert "other rows" in answer.json()["error"]


def test_writing_needs_the_token_and_is_off_without_one(client: TestClient, store: Store) -> None:
    for headers in ({}, {"Authorization": "Bearer guess"}, {"Authorization": TOKEN}):
        answer = client.post("/v1/runs", json=[ROW], headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get("/api/v1/meta").json()["writes"] is True
    with client_of(store) as read_only:
        answer = read_only.post("/v1/runs", json=[ROW], headers=AUTHORISED)
        assert (answer.status_code, "UPCURVE_DASHBOARD_TOKEN" in answer.text) == (403, True)
        assert read_only.get("/api/v1/meta").json()["writes"] is False
    assert store.series() == []


def test_a_body_without_end_is_cut(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upcurve.dashboard.app.MOST_BYTES", 1000)
    assert intake.MOST_BYTES == 64 * 2**20
    answer = post(client, [ROW | {"image": "x" * 1000}])
    assert answer.status_code == 413


def test_no_answer_holds_the_token(client: TestClient) -> None:
    post(client, [ROW])
    pages = ["/", "/api/v1/meta", "/api/v1/runs", "/api/openapi.json", "/api/v1/series"]
    for path in pages:
        assert TOKEN not in client.get(path).text
