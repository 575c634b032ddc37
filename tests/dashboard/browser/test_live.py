"""An empty store says what to do; points appear while another process writes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tests.dashboard.browser.conftest import Dashboard
from tests.dashboard.browser.test_views import Window, barriers
from tests.records.examples import point_record, run_record
from upcurve.records.store import Store


def test_an_empty_store_says_what_to_do_and_points_appear_by_themselves(
    visit: Window, tmp_path: Path
) -> None:
    dashboard = Dashboard(tmp_path / "store")
    with closing(dashboard), Store.open(tmp_path / "store") as store:
        visitor = visit(390)
        page = visitor.open(dashboard.url + "?view=frontier")
        assert "upcurve import published:mi355x-qwen35" in page.locator("main").inner_text()
        assert visitor.overflow() <= 0
        assert barriers(visitor) == []
        page.wait_for_selector(".live:has-text('live')")
        run = store.begin_run(run_record(series="running"))
        for concurrency, tput in [(4, 900.0), (8, 1400.0)]:
            speed = 80.0 - 4 * concurrency
            store.add_point(
                run,
                point_record(
                    concurrency=concurrency,
                    tput_per_gpu=tput,
                    interactivity=speed,
                    tpot_ms=1000 / speed,
                ),
            )
        dots = page.locator("[data-chart=frontier] g[aria-label=dot]").last
        dots.locator("path >> nth=1").wait_for(state="attached")
        page.wait_for_selector(".live:has-text('measuring running')")
        store.add_point(run, point_record(concurrency=16, tput_per_gpu=2000.0, interactivity=30.0))
        page.wait_for_selector(".live:has-text('1 new point')")
        dots.locator("path >> nth=2").wait_for(state="attached")
        store.end_run(run, "complete")
        page.wait_for_selector(".live:not(:has-text('measuring'))")
