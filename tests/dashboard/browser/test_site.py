"""The static export: the same page from a file, without a server, and without what needs one."""

from __future__ import annotations

import pytest

from tests.dashboard.browser import stores
from tests.dashboard.browser.conftest import PRESET, published
from tests.dashboard.browser.test_views import Window
from upcurve.cli import run


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("site") / "out"
    store = published(folder.parent / "store")
    stores.rich(store, builds=3)
    stores.hostile(store)
    with pytest.raises(SystemExit) as ended:
        run(["export", "--site", str(folder), "--store", str(store)])
    assert not ended.value.code
    return (folder / "index.html").as_uri()


def test_the_published_page_opens_from_a_file(visit: Window, site: str) -> None:
    visitor = visit()
    page = visitor.open(site + PRESET)
    page.wait_for_selector("table.compare")
    ratio = page.locator("tbody[data-target='40'] tr[data-line=ratio] td[data-series=may]")
    assert ratio.inner_text() == "19.0x"
    assert page.locator("[data-chart=frontier] g[aria-label=line]").count() == 3
    targets = page.get_by_label("At tok/s/user")
    targets.fill("30")
    targets.press("Enter")
    page.wait_for_selector("tbody[data-target='40']", state="detached")
    assert page.url.endswith("&at=30")
    page.go_back()
    page.wait_for_selector("tbody[data-target='40']")


VIEWS = {
    "overview": "Overview",
    "frontier": "Frontier",
    "history": "History",
    "accuracy": "Accuracy",
    "attribution": "Attribution",
    "runs": "Runs",
    "hardware": "Hardware and prices",
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_open_from_a_file(visit: Window, site: str, view: str) -> None:
    visitor = visit(390)
    page = visitor.open(f"{site}?view={view}")
    assert page.locator("h1").inner_text() == VIEWS[view]
    assert page.locator(".refusal").count() == 0
    assert "exported" in page.locator("footer").inner_text()
    assert page.get_by_text("Prices and what-if").count() == 0
    assert visitor.overflow() <= 0


def test_a_run_and_its_requests_open_from_a_file(visit: Window, site: str) -> None:
    visitor = visit()
    page = visitor.open(site + "?view=runs&q=nightly-2026-06-03")
    page.locator("tbody a").first.click()
    visitor.settle()
    page.wait_for_selector("h1:has-text('nightly-2026-06-03')")
    assert "upcurve 0.6.2: ready on port 8000" in page.locator("main").inner_text()


def test_what_an_export_lacks_says_so(visit: Window, site: str) -> None:
    page = visit().open(site + PRESET + "&rule=linear")
    page.wait_for_selector(".refusal")
    assert "upcurve dashboard" in page.locator(".refusal").first.inner_text()
