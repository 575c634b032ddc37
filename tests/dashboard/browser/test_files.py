"""Charts and tables as files: valid, whole, and saying where they come from."""

from __future__ import annotations

import csv
import io
import struct
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest

from tests.dashboard.browser.conftest import PRESET, Dashboard, Visitor
from tests.dashboard.browser.stores import HOSTILE, HOSTILE_SERIES
from tests.dashboard.browser.test_views import Window
from upcurve.records.store import Store

NIGHTLY = "?view=history&at=40"


def taken(visitor: Visitor, chart: str, kind: str, folder: Path) -> Path:
    with visitor.page.expect_download() as waiting:
        visitor.page.locator(f"[data-chart={chart}]").get_by_role("button", name=kind).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def texts(svg: Path) -> list[str]:
    root = ET.fromstring(svg.read_text(encoding="utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(
    ("query", "chart", "says"),
    [
        (PRESET, "frontier", ["feb: Qwen3.5-397B-A17B on MI355X", "rule 'published'", "Source: "]),
        (NIGHTLY, "history-1", ["Throughput per GPU at 40 tok/s/user", "Source: "]),
    ],
)
def test_a_chart_is_an_svg_a_png_and_a_csv_with_source_date_and_assumptions(
    visit: Window, full: Dashboard, tmp_path: Path, query: str, chart: str, says: list[str]
) -> None:
    visitor = visit(390)
    visitor.open(full.url + query)
    svg = taken(visitor, chart, "SVG", tmp_path)
    written = " ".join(texts(svg))
    assert svg.name == f"{chart}.svg"
    assert all(each in written for each in [*says, full.url])
    # Drawn for paper, whatever the width of the window.
    assert ET.fromstring(svg.read_text(encoding="utf-8")).get("width") == "960"
    png = taken(visitor, chart, "PNG", tmp_path).read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">I", png[16:20])[0] == 1920
    assert len(png) > 20_000
    text = taken(visitor, chart, "CSV", tmp_path).read_text(encoding="utf-8")
    comments = [line for line in text.splitlines() if line.startswith("# ")]
    assert all(any(each in line for line in comments) for each in [*says, full.url])
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("# ")))
    assert len(rows) >= 12


def test_the_csv_of_the_frontier_has_the_points_of_the_store(
    visit: Window, full: Dashboard, tmp_path: Path
) -> None:
    visitor = visit()
    visitor.open(full.url + "?view=frontier&series=feb&series=apr&series=may&dominated=1")
    text = taken(visitor, "frontier", "CSV", tmp_path).read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("# "))
    shown = {
        (row["series"], float(row["interactivity (tok/s/user)"]), float(row["total (tok/s/GPU)"]))
        for row in rows
    }
    with Store.open(full.store, create=False) as store:
        kept = {
            (row["series"], row["interactivity"], row["tput_per_gpu"])
            for row in store.rows(["feb", "apr", "may"])
        }
    assert shown == kept
    assert len(kept) == 21


def test_the_comparison_is_taken_away_as_csv_and_as_the_api_prints_it(
    visit: Window, full: Dashboard, tmp_path: Path
) -> None:
    visitor = visit()
    page = visitor.open(full.url + PRESET)
    page.wait_for_selector("table.compare")
    tools = page.get_by_role("group", name="Take away: the comparison")
    with page.expect_download() as waiting:
        tools.get_by_role("button", name="CSV").click()
    path = tmp_path / "compare.csv"
    waiting.value.save_as(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("# ")))
    may = next(row for row in rows if (row["series"], row["interactivity"]) == ("may", "40"))
    assert float(may["ratio"]) == pytest.approx(19.0, abs=0.05)
    assert any("MI355X $1.48 per GPU-hour" in line for line in lines)
    address = tools.get_by_role("link", name="Markdown").get_attribute("href")
    answer = page.request.get(full.url + str(address))
    assert "| 3,660 |" in answer.text().replace("  ", " ")


def test_names_from_data_are_text_in_every_file(
    visit: Window, full: Dashboard, tmp_path: Path
) -> None:
    visitor = visit()
    series = quote(HOSTILE_SERIES)
    visitor.open(full.url + f"?view=frontier&series={series}")
    svg = taken(visitor, "frontier", "SVG", tmp_path)
    assert any(HOSTILE_SERIES in each for each in texts(svg))
    assert not list(ET.fromstring(svg.read_text("utf-8")).iter("{http://www.w3.org/2000/svg}img"))
    text = taken(visitor, "frontier", "CSV", tmp_path).read_text(encoding="utf-8")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("# "))
    (first, *_) = csv.DictReader(io.StringIO(body))
    assert first["series"] == HOSTILE_SERIES
    assert HOSTILE in first["engine"]
