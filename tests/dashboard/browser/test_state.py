"""Everything that the page shows is in its address, and comes back from it."""

from __future__ import annotations

import re

from tests.dashboard.browser.conftest import PRESET, Dashboard
from tests.dashboard.browser.test_views import Window

FRONTIER = "?view=frontier&series=feb&series=apr&series=may"


def test_an_address_restores_axes_toggles_targets_and_prices(
    visit: Window, full: Dashboard
) -> None:
    query = PRESET + "&price=MI355X=2.1&dominated=1&log=1&rule=linear"
    page = visit().open(full.url + query)
    assert page.get_by_label("Baseline").input_value() == "feb"
    assert page.get_by_label("At tok/s/user").input_value() == "20,30,40,50,60"
    assert page.get_by_label("Between points").input_value() == "linear"
    assert page.get_by_label("USD per GPU-hour").first.input_value() == "MI355X=2.1"
    # Straight lines give 17.7x where the published rule gives 19.0x.
    ratio = page.locator("tbody[data-target='40'] tr[data-line=ratio] td[data-series=may]")
    assert ratio.inner_text() == "17.7x"
    assert page.url == full.url + query


def test_what_is_changed_by_hand_goes_to_the_address_and_back_undoes_it(
    visit: Window, full: Dashboard
) -> None:
    visitor = visit()
    page = visitor.open(full.url + PRESET)
    targets = page.get_by_label("At tok/s/user")
    targets.fill("25, 35")
    targets.press("Enter")
    page.wait_for_selector("tbody[data-target='35']")
    assert page.url.endswith("&at=25,35")
    page.get_by_label("Baseline").select_option("apr")
    page.wait_for_selector("thead th:has-text('apr') >> text=baseline")
    page.get_by_role("link", name="History").click()
    page.wait_for_selector("h1:has-text('History')")
    for _ in range(3):
        page.go_back()
    page.wait_for_selector("tbody[data-target='60']")
    assert page.url == full.url + PRESET
    assert page.get_by_label("At tok/s/user").input_value() == "20,30,40,50,60"
    page.go_forward()
    page.wait_for_selector("tbody[data-target='35']")


def test_the_legend_hides_leaves_alone_and_restores(visit: Window, full: Dashboard) -> None:
    page = visit().open(full.url + FRONTIER)
    lines = page.locator("[data-chart=frontier] g[aria-label=line]")
    assert lines.count() == 3
    page.get_by_role("button", name="feb", exact=True).click()
    page.wait_for_url("**hide=feb*")
    assert lines.count() == 2
    assert page.get_by_role("button", name="feb", exact=True).get_attribute("aria-pressed") == (
        "false"
    )
    page.get_by_role("button", name="Show only may").click()
    page.wait_for_url("**only=may*")
    assert lines.count() == 1
    page.get_by_role("button", name="Show all").click()
    page.wait_for_url(full.url + FRONTIER)
    assert lines.count() == 3


def test_keys_walk_the_points_pin_one_and_lead_to_its_run(visit: Window, full: Dashboard) -> None:
    visitor = visit()
    page = visitor.open(full.url + FRONTIER)
    chart = page.get_by_role("application")
    chart.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    spoken = page.locator("figure [role=status]").inner_text()
    assert spoken.startswith("feb. Interactivity 28.48 tok/s/user")
    assert "917.8 tok/s/GPU" in spoken
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"pin=\d+"))
    pinned = page.url
    page.keyboard.press("Escape")
    page.wait_for_url(full.url + FRONTIER)
    page = visitor.open(pinned)
    page.locator(".tip").get_by_role("link", name="Its run").click()
    visitor.settle()
    page.wait_for_selector("h1:has-text('feb')")
    assert "sglang 0.5.8.post1" in page.locator("main").inner_text()


def test_a_chart_stands_alone_under_the_address_to_embed(visit: Window, full: Dashboard) -> None:
    visitor = visit()
    page = visitor.open(full.url + PRESET)
    address = page.get_by_role("link", name="Embed").get_attribute("href")
    assert address
    alone = visitor.open(full.url + address)
    assert alone.locator("figure").count() == 1
    assert alone.locator("header, nav, table").count() == 0
    assert alone.locator("[data-chart=frontier] svg").count() == 1


def test_series_are_found_by_name(visit: Window, full: Dashboard) -> None:
    visitor = visit()
    page = visitor.open(full.url + "?view=frontier")
    page.get_by_label("Choose series by name").fill("06-11")
    page.locator(".found").get_by_role("button", name="nightly-2026-06-11").click()
    page.wait_for_url("**series=nightly-2026-06-11*")
    visitor.settle()
    assert page.locator(".legend li").count() == 1


def test_a_bad_address_is_refused_in_the_words_of_the_api(visit: Window, full: Dashboard) -> None:
    page = visit().open(full.url + "?view=compare&series=feb&series=june")
    page.wait_for_selector(".refusal")
    assert "june" in page.locator(".refusal").first.inner_text()
