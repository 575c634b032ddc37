"""The contract is what is answered, and what its page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.testclient import TestClient

from upcurve.dashboard.contract import curves, meta, runs
from upcurve.dashboard.contract.common import Problem

PAGE = Path(__file__).parents[2] / "docs" / "dashboard-api.md"
MODELS: dict[str, type[BaseModel]] = {
    "meta": meta.Meta,
    "overview": meta.Overview,
    "series": meta.SeriesList,
    "frontier": curves.Frontier,
    "limit": curves.Limit,
    "compare": curves.Compare,
    "history": curves.History,
    "attribution": runs.Attribution,
    "accuracy": runs.Accuracy,
    "runs": runs.RunList,
    "runs/{id}": runs.RunDetail,
    "points/{id}/timeline": runs.Timeline,
    "hardware": meta.Hardware,
    "events": runs.Event,
    "POST runs": runs.Reported,
}


def samples() -> dict[str, Any]:
    parts = re.findall(
        r"^### ([^\n]+)\n\n```json\n(.*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return {name: json.loads(text) for name, text in parts}


@pytest.mark.parametrize("name", MODELS)
def test_a_sample_of_the_page_is_an_answer_of_its_model(name: str) -> None:
    MODELS[name].model_validate(samples()[name])


def test_the_page_tells_of_every_endpoint_and_parameter(published: TestClient) -> None:
    assert samples().keys() == MODELS.keys()
    schema = published.get("/api/openapi.json").json()
    page = PAGE.read_text()
    prices = {"price", "tier", "on", "as_hardware", "kw", "usd_per_kwh", "pue"}
    for path, methods in schema["paths"].items():
        name = re.sub(r"{\w+}", "{id}", path.removeprefix("/api/v1/"))
        row = next((line for line in page.splitlines() if line.startswith(f"| `{name}`")), "")
        assert row, name
        for each in methods.get("get", {}).get("parameters", []):
            if each["in"] == "query":
                told = f"`{each['name']}`" in row or (each["name"] in prices and "prices" in row)
                assert told, (name, each["name"])


PATHS = {
    "meta": "meta",
    "overview": "overview?tiers=20,40",
    "series": "series",
    "frontier": "frontier?group=GROUP&dominated=true",
    "limit": "limit?group=GROUP",
    "compare": "compare?group=GROUP&at=40",
    "history": "history?group=GROUP&at=40",
    "attribution": "attribution",
    "accuracy": "accuracy",
    "runs": "runs",
    "runs/{id}": "runs/RUN",
    "hardware": "hardware?on=2026-01-01",
}


@pytest.mark.parametrize("store", ["published", "nightlies"])
@pytest.mark.parametrize("name", PATHS)
def test_an_answer_is_of_its_model(name: str, store: str, request: pytest.FixtureRequest) -> None:
    client: TestClient = request.getfixturevalue(store)
    group = client.get("/api/v1/meta").json()["groups"][0]["id"]
    run = client.get("/api/v1/runs").json()["items"][0]["id"]
    path = PATHS[name].replace("GROUP", group).replace("RUN", run)
    answer = client.get(f"/api/v1/{path}")
    assert answer.status_code == 200, answer.text
    value = answer.json()
    assert json.loads(MODELS[name].model_validate(value).model_dump_json()) == value


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("frontier?series=nope", 400, "'nope' is not in the store; it holds"),
        ("frontier", 400, "none is chosen"),
        ("frontier?group=nope", 400, "there is none 'nope'"),
        ("frontier?series=feb&x=speed", 422, "'speed': input should be 'interactivity'"),
        ("frontier?series=feb&colour=red", 422, "colour: there is no such parameter"),
        ("compare?series=feb&at=fast", 422, "'fast' is not a positive number"),
        ("compare?series=feb&at=20&every=10", 400, "exclude each other"),
        ("compare?series=feb&at=20&price=MI355X", 422, "is no HARDWARE=NUMBER"),
        ("compare?series=feb&at=20&tier=mine", 400, "no 'mine' price for MI355X"),
        ("compare?series=feb&at=20&kw=MI355X=2", 400, "power has no price"),
        ("history?pattern=feb&at=40&concurrency=4", 400, "give one of at and concurrency"),
        ("history?pattern=nope*&at=20", 400, "fits none in the store"),
        ("history?pattern=published:mi355x-qwen35&at=20", 400, "import them first"),
        ("overview?limit=1000", 422, "less than or equal to 100"),
        ("runs/nope", 404, "there is none 'nope'"),
        ("points/999/timeline", 404, "there is none 999"),
        ("points/x/timeline", 422, "point_id"),
        ("nothing", 404, "there is nothing here"),
    ],
)
def test_a_refusal_is_one_line_that_names_field_and_mend(
    published: TestClient, path: str, status: int, words: str
) -> None:
    answer = published.get(f"/api/v1/{path}")
    assert answer.status_code == status, answer.text
    problem = Problem.model_validate(answer.json())
    assert words in problem.error
    assert "\n" not in problem.error
    assert problem.error == f"{problem.field}: {problem.problem}; {problem.mend}"


def test_a_wrong_method_is_refused(published: TestClient) -> None:
    answer = published.delete("/api/v1/meta")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert Problem.model_validate(answer.json()).field == "method"


def test_the_page_of_the_api_names_every_endpoint_and_model_and_loads_nothing(
    published: TestClient,
) -> None:
    schema = published.get("/api/openapi.json").json()
    page = published.get("/api/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in schema["paths"]:
        assert f" {path}</code>" in page.text
    targets = set(re.findall(r"id='([^']+)'", page.text))
    assert schema["components"]["schemas"].keys() <= targets
    assert set(re.findall(r"href='#([^']+)'", page.text)) <= targets
    loaded = re.findall(r"<link[^>]*href='([^']+)'", page.text)
    assert loaded == ["/api/docs.css"]
    assert "<script" not in page.text
    assert published.get(loaded[0]).headers["content-type"].startswith("text/css")
