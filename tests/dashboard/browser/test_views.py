"""Every view opens: in light, dark and narrow, without errors, foreign hosts or barriers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.dashboard.browser.conftest import PRESET, Dashboard, Visitor
from upcurve.records.store import Store

VIEWS = {
    "overview": "?",
    "frontier": "?view=frontier&dominated=1&limit=1",
    "compare": PRESET,
    "history": "?view=history&at=40",
    "attribution": "?view=attribution",
    "accuracy": "?view=accuracy",
    "runs": "?view=runs",
    "hardware": "?view=hardware",
}
Window = Callable[..., Visitor]


def barriers(visitor: Visitor, *rules: str) -> list[str]:
    """Return what the axe scan finds, by rule and element."""
    options = {"runOnly": list(rules)} if rules else None
    found = Axe().run(visitor.page, options=options).response["violations"]
    return [f"{each['id']}: {node['html'][:160]}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_opens_clean_in_light_dark_and_narrow(
    visit: Window, full: Dashboard, view: str
) -> None:
    visitor = visit()
    page = visitor.open(full.url + VIEWS[view])
    assert page.locator("nav [aria-current]").inner_text().lower().startswith(view)
    assert page.locator(".refusal").count() == 0
    assert visitor.overflow() <= 0
    assert barriers(visitor) == []
    page.set_viewport_size({"width": 390, "height": 900})
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("html[data-theme=dark]")
    # Links fade from one theme's colour to the other's.
    page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished))")
    assert visitor.overflow() <= 0
    # Only colours depend on the theme.
    assert barriers(visitor, "color-contrast") == []


def test_a_run_shows_recipe_environment_log_and_its_requests(
    visit: Window, full: Dashboard
) -> None:
    with Store.open(full.store, create=False) as store:
        runs = [row["run"] for row in store.rows(["nightly-2026-06-03"]) if row["repeat"] == 0]
    visitor = visit(390)
    page = visitor.open(f"{full.url}?view=run&run={runs[0]}")
    text = page.locator("main").inner_text()
    assert "serve --tp" in text
    assert "node1" in text
    assert "upcurve 0.6.2: ready on port 8000" in text
    assert page.locator("[data-chart=requests] rect").count() > 24
    assert visitor.overflow() <= 0
    assert barriers(visitor) == []


def test_the_published_page_opens_from_its_preset(visit: Window, full: Dashboard) -> None:
    visitor = visit()
    page = visitor.open(full.url)
    page.get_by_role("link", name="Qwen3.5 397B on MI355X").click()
    visitor.settle()
    assert page.url == full.url + PRESET
    page.wait_for_selector("table.compare")
    assert page.locator("table.compare tbody[data-target]").count() == 5
    assert page.locator("[data-chart=frontier] svg").count() == 1
