"""The API's numbers are the command line's; answers are kept, compressed, and known by ETag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.dashboard.conftest import client_of
from tests.records.examples import point_record, run_record
from upcurve.cli import run
from upcurve.records.rows import import_rows
from upcurve.records.store import Store


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    with pytest.raises(SystemExit) as ended:
        run([*map(str, arguments), "--json"])
    assert ended.value.code in (0, None)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("query", "options"),
    [
        (
            "series=feb&series=apr&series=may&baseline=feb&at=20,30,40,50,60",
            ["feb", "apr", "may", "--baseline", "feb", "--at", "20,30,40,50,60"],
        ),
        (
            "series=apr&series=may&every=10&rule=pchip",
            ["apr", "may", "--every", 10, "--rule", "pchip"],
        ),
        (
            "series=may&baseline=feb&at=40&tier=rental&on=2026-07-02",
            ["may", "--baseline", "feb", "--at", 40, "--tier", "rental", "--on", "2026-07-02"],
        ),
        (
            "series=feb&series=may&at=30&as_hardware=may=H200&kw=MI355X=2&usd_per_kwh=0.1&pue=1.2"
            "&output_weight=4",
            [
                *["feb", "may", "--at", 30, "--as-hardware", "may=H200", "--kw", "MI355X=2"],
                *["--usd-per-kwh", 0.1, "--pue", 1.2, "--output-weight", 4],
            ],
        ),
    ],
)
def test_a_comparison_is_what_the_command_prints(
    published: TestClient,
    published_folder: Path,
    capsys: pytest.CaptureFixture[str],
    query: str,
    options: list[object],
) -> None:
    answer = published.get(f"/api/v1/compare?{query}").json()
    assert answer["comparison"] == printed(capsys, "compare", *options, "--store", published_folder)
    assert [each["name"] for each in answer["details"]] == [
        each["name"] for each in answer["comparison"]["series"]
    ]


def test_a_comparison_with_repeats_is_what_the_command_prints(
    nightlies: TestClient, rich_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [each["name"] for each in nightlies.get("/api/v1/series").json()["items"]][:3]
    query = "&".join(f"series={name}" for name in names)
    answer = nightlies.get(f"/api/v1/compare?{query}&at=40,60").json()["comparison"]
    told = printed(capsys, "compare", *names, "--at", "40,60", "--store", rich_folder)
    assert answer == told
    assert any(each["interval"] for series in told["series"] for each in series["at"])


def test_texts_are_those_of_the_command(
    published: TestClient, published_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for form, kind in (("csv", "text/csv"), ("markdown", "text/markdown"), ("latex", "latex")):
        query = f"series=feb&series=may&at=20,40&format={form}"
        answer = published.get(f"/api/v1/compare?{query}")
        options = ["--at", "20,40", "--format", form, "--store", str(published_folder)]
        with pytest.raises(SystemExit):
            run(["compare", "feb", "may", *options])
        assert answer.text == capsys.readouterr().out
        assert kind in answer.headers["content-type"]


@pytest.mark.parametrize("place", ["--at 40,60", "--concurrency 16"])
@pytest.mark.parametrize("metric", ["tput", "usd_per_million"])
def test_a_history_is_what_the_command_prints(
    nightlies: TestClient,
    rich_folder: Path,
    capsys: pytest.CaptureFixture[str],
    place: str,
    metric: str,
) -> None:
    option, value = place.split()
    query = f"pattern=nightly*&{option[2:]}={value}&metric={metric}"
    answer = nightlies.get(f"/api/v1/history?{query}").json()["history"]
    told = printed(
        capsys, "history", "nightly*", option, value, "--metric", metric, "--store", rich_folder
    )
    assert answer == told
    assert any(each["change_points"] for each in told["histories"])


def test_a_history_of_a_group_is_that_of_its_series(nightlies: TestClient) -> None:
    groups = nightlies.get("/api/v1/meta").json()["groups"]
    group = next(each for each in groups if each["series"] > 2)["id"]
    by_group = nightlies.get(f"/api/v1/history?group={group}&at=40").json()["history"]
    by_name = nightlies.get("/api/v1/history?pattern=nightly*&at=40").json()["history"]
    assert by_name["histories"][0] in by_group["histories"]


@pytest.mark.parametrize(("scale", "place"), [(1.0, "40"), (8.0, "400"), (0.1, "4")])
def test_without_a_place_a_history_is_where_the_most_builds_reach(
    tmp_path: Path, scale: float, place: str
) -> None:
    spans = {f"nightly-{day}": (30 * scale, 55 * scale) for day in (1, 2, 3)}
    # One alone reaches far more.
    spans["nightly-4"] = (1.0, 9000.0)
    rows = [
        "series,measured_on,hardware,model,isl,osl,tp,gpus,concurrency,tput_per_gpu,interactivity"
    ]
    for day, (build, span) in enumerate(spans.items(), 1):
        rows += [
            f"{build},2026-05-0{day},H200,m,1,1,1,1,{place_of},{100 / x},{x}"
            for place_of, x in enumerate(span, 1)
        ]
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(rows))
    with Store.open(tmp_path / "store") as store, client_of(store) as client:
        import_rows(store, str(file))
        told = client.get("/api/v1/history?pattern=nightly*").json()["history"]["histories"]
    assert {each["at"] for each in told} == {f"{place} tok/s/user"}


def test_an_answer_is_known_by_its_etag_until_the_store_changes(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, client_of(store) as client:
        import_rows(store, "published:mi355x-qwen35")
        paths = ["meta", "overview", "frontier?series=may", "compare?series=may&at=40", "runs"]
        tags = {}
        for path in paths:
            first = client.get(f"/api/v1/{path}")
            tags[path] = first.headers["etag"]
            again = client.get(f"/api/v1/{path}", headers={"If-None-Match": tags[path]})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tags[path]
            other = client.get(f"/api/v1/{path}", headers={"If-None-Match": 'W/"other"'})
            assert other.content == first.content
        assert len(set(tags.values())) == len(tags)
        # Another process writes: a run begins, a point comes, the run ends.
        with Store.open(tmp_path) as writer:
            steps = []
            run_id = writer.begin_run(run_record(series="new"))
            steps.append(client.get("/api/v1/runs", headers={"If-None-Match": tags["runs"]}))
            writer.add_point(run_id, point_record())
            steps.append(client.get("/api/v1/runs"))
            writer.end_run(run_id, "complete")
            steps.append(client.get("/api/v1/runs"))
        assert [each.status_code for each in steps] == [200] * 3
        newest = [each.json()["items"][0] for each in steps]
        assert [each["points"] for each in newest] == [0, 1, 1]
        assert [each["status"] for each in newest] == ["running", "running", "complete"]
        for path in paths:
            changed = client.get(f"/api/v1/{path}", headers={"If-None-Match": tags[path]})
            assert changed.status_code == 200


def test_answers_are_compressed_where_the_client_can(published: TestClient) -> None:
    path = "/api/v1/frontier?series=feb&series=apr&series=may"
    plain = published.get(path, headers={"Accept-Encoding": "identity"})
    packed = published.get(path, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert packed.json() == plain.json()
    assert packed.headers["vary"] == "Accept-Encoding"


def test_series_are_filtered_and_paged(nightlies: TestClient) -> None:
    def names(query: str) -> list[str]:
        found = nightlies.get(f"/api/v1/series?{query}").json()
        return [each["name"] for each in found["items"]]

    every = nightlies.get("/api/v1/series?limit=1000").json()
    assert every["total"] == len(every["items"]) > 10
    days = [each["last_measured_on"] or "" for each in every["items"]]
    assert days == sorted(days, reverse=True)
    pages = [names(f"limit=5&offset={offset}") for offset in range(0, every["total"], 5)]
    assert [name for page in pages for name in page] == names("limit=1000")
    assert names("q=NIGHTLY-2026-06-01") == ["nightly-2026-06-01"]
    hardware = every["facets"]["hardware"][0]
    assert names(f"hardware={hardware}") == [
        each["name"] for each in every["items"] if hardware in each["hardware"]
    ]
    assert names("model=none") == []


def test_an_empty_store_answers_and_says_nothing_is_there(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, client_of(store) as client:
        meta = client.get("/api/v1/meta").json()
        assert meta["counts"] == {"series": 0, "runs": 0, "points": 0}
        assert (meta["groups"], meta["presets"]) == ([], [])
        assert client.get("/api/v1/overview").json()["rows"] == []
        assert client.get("/api/v1/series").json()["items"] == []
        refused = client.get("/api/v1/compare?series=feb&at=20")
        assert refused.status_code == 400
        assert "it is empty: import or sweep first" in refused.json()["error"]


def test_the_published_story_is_a_preset_that_the_api_can_answer(published: TestClient) -> None:
    (preset,) = published.get("/api/v1/meta").json()["presets"]
    query = preset["query"].removeprefix("view=compare&")
    answer = published.get(f"/api/v1/compare?{query}").json()
    comparison = answer["comparison"]
    assert answer["notes"][-1].startswith("Price: MI355X $1.48 per GPU-hour")
    at_forty = {each["name"]: each["at"][2] for each in comparison["series"]}
    assert at_forty["may"]["ratio"] == pytest.approx(19.0, abs=0.05)
    assert at_forty["feb"]["tput_per_gpu"] == pytest.approx(192, abs=0.5)
    codes = [flag["code"] for flag in at_forty["may"]["flags"]]
    assert "regime_extension" in codes
    texts = [flag["text"] for flag in at_forty["may"]["flags"]]
    assert any(each.startswith("40 lies in the last interval of feb") for each in texts)
