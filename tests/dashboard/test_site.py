"""The static export: every file is an answer of the API, and nothing of a reader's is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.dashboard.browser.stores import hostile
from tests.dashboard.conftest import client_of
from upcurve.cli import run
from upcurve.records.store import Store


def export(
    store: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run(["export", "--site", str(folder), "--store", str(store), "--json"])
    return (ended.value.code, *capsys.readouterr())


def answers(folder: Path) -> dict[str, Any]:
    found = {}
    for file in (folder / "data").rglob("*.js"):
        name = file.relative_to(folder / "data").as_posix().removesuffix(".js")
        call = re.fullmatch(r"upcurveAnswer\((.*)\);\n", file.read_text(), re.DOTALL)
        assert call
        given, value = json.loads(f"[{call[1]}]")
        assert given == name
        found[name] = value
    return found


def test_every_file_is_the_api_s_answer(
    published: TestClient,
    published_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "site"
    code, out, _ = export(published_folder, folder, capsys)
    assert (code, json.loads(out)["groups"]) == (0, 1)
    files = answers(folder)
    (group,) = files["site"]["grid"]
    grid = ",".join(f"{each:g}" for each in files["site"]["grid"][group])
    assert {20, 30, 40, 50, 60} <= set(files["site"]["grid"][group])
    baselines = files["site"]["baselines"][group]
    paths = {
        "series": "series",
        "overview": "overview",
        "attribution": "attribution",
        "hardware": "hardware",
        "runs": "runs",
        f"accuracy/{group}": f"accuracy?group={group}",
        f"history/{group}/tput": f"history?group={group}&metric=tput&at={grid}",
        f"limit/{group}/MI355X.interactivity.cost": f"limit?group={group}&hardware=MI355X&y=cost",
    }
    for x, ys in files["site"]["frontier"].items():
        for y in ys:
            query = f"group={group}&x={x}&y={y}&dominated=true"
            paths[f"frontier/{group}/{x}.{y}"] = f"frontier?{query}"
    for place, baseline in enumerate(baselines):
        query = f"series=feb&series=apr&series=may&baseline={baseline}&at={grid}"
        paths[f"compare/{group}/{place}"] = f"compare?{query}"
    assert files["site"]["frontier"] == {"interactivity": ["total", "cost", "per_mw"]}
    assert sorted(baselines) == ["apr", "feb", "may"]
    for name, path in paths.items():
        assert files[name] == published.get(f"/api/v1/{path}").json(), name
    meta = published.get("/api/v1/meta").json()
    assert files["meta"] == meta | {
        "live": False,
        "exported_at": files["meta"]["exported_at"],
        "store": published_folder.name,
    }
    for run_id, detail in files["runs/0"].items():
        assert detail == published.get(f"/api/v1/runs/{run_id}").json()
    assert len(files["runs/0"]) == 3
    index = (folder / "index.html").read_text()
    assert 'data-mode="static"' in index
    for name in re.findall(r'(?:src|href)="([^"]+)"', index):
        assert (folder / name).is_file(), name


def test_requests_of_points_are_exported_and_hostile_names_stay_inside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile(tmp_path / "store")
    folder = tmp_path / "deep" / "site"
    assert export(tmp_path / "store", folder, capsys)[0] == 0
    files = answers(folder)
    points = files["site"]["timelines"]
    assert len(points) == 3
    with Store.open(tmp_path / "store") as store, client_of(store) as client:
        for point in points:
            told = client.get(f"/api/v1/points/{point}/timeline").json()
            assert files[f"timeline/{point}"] == told
    for file in folder.rglob("*"):
        assert re.fullmatch(r"[\w./-]+", file.relative_to(folder).as_posix())


def test_an_export_replaces_an_earlier_one_and_nothing_else(
    published_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    assert export(published_folder, folder, capsys)[0] == 0
    (folder / "data" / "stale.js").write_text("")
    assert export(published_folder, folder, capsys)[0] == 0
    assert not (folder / "data" / "stale.js").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["site"]
    own = tmp_path / "own"
    own.mkdir()
    (own / "thesis.txt").write_text("years of work")
    code, out, err = export(published_folder, own, capsys)
    assert (code, out) == (2, "")
    assert "holds something else" in err
    assert (own / "thesis.txt").read_text() == "years of work"
    with pytest.raises(SystemExit) as ended:
        run(["export", "--site", str(folder), "--series", "feb", "--store", str(published_folder)])
    assert ended.value.code == 2


def test_a_failed_export_leaves_the_earlier_one(
    published_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "site"
    export(published_folder, folder, capsys)
    before = sorted(each.name for each in folder.rglob("*"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("upcurve.dashboard.site._Site._runs", full)
    code, _, err = export(published_folder, folder, capsys)
    assert (code, "No space left on device" in err) == (2, True)
    assert sorted(each.name for each in folder.rglob("*")) == before
    assert [each.name for each in tmp_path.iterdir()] == ["site"]
