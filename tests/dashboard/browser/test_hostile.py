"""Texts of the store are text: whatever a model or series is called, nothing of it runs."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.dashboard.browser.conftest import Dashboard
from tests.dashboard.browser.stores import HOSTILE, HOSTILE_LINK, HOSTILE_SERIES
from tests.dashboard.browser.test_views import Window
from upcurve.records.store import Store

SERIES = quote(HOSTILE_SERIES)


@pytest.mark.parametrize(
    "query",
    [
        "?q=img",
        f"?view=frontier&series={SERIES}&pin=change:{SERIES}",
        f"?view=compare&series={SERIES}&at=50",
        f"?view=history&series={SERIES}&at=50",
        f"?view=accuracy&series={SERIES}",
        f"?view=runs&series={SERIES}",
        "?view=run",
        f"?view=%3Cimg%20src=x%20onerror=alert(1)%3E&series={SERIES}&theme={quote(HOSTILE)}",
        f"?view=compare&series={quote(HOSTILE)}&at={quote(HOSTILE)}",
    ],
    ids=["overview", "frontier", "compare", "history", "accuracy", "runs", "run", "view", "series"],
)
def test_markup_from_data_or_address_is_shown_and_never_run(
    visit: Window, full: Dashboard, query: str
) -> None:
    if query == "?view=run":
        with Store.open(full.store, create=False) as store:
            (run,) = {row["run"] for row in store.rows([HOSTILE_SERIES])}
        query += f"&run={run}"
    visitor = visit(390)
    page = visitor.open(full.url + query)
    page.wait_for_timeout(100)  # an image that fails needs a moment to say so
    assert HOSTILE in page.locator("body").inner_text() or "view=%3C" in query
    assert page.locator("img:not([src='icon.svg'])").count() == 0
    assert page.locator("body script, [onerror], iframe").count() == 0
    assert HOSTILE_LINK not in page.eval_on_selector_all("a", "all => all.map(a => a.href)")
    assert visitor.overflow() <= 0
